#!/bin/sh
# How good the trained head is: ./eval.sh DATA
data=${1:?"usage: $0 DATA"}
shift
here=$(dirname "$0")
exec "$here/net_runner" -f "$here/trained.nst" -d "$data" -c 0 "$@"
