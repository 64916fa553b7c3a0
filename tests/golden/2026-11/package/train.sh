#!/bin/sh
# Learns from DATA and saves the trained head beside the packed one: ./train.sh DATA [more options of net_runner]
data=${1:?"usage: $0 DATA [options of net_runner]"}
shift
here=$(dirname "$0")
exec "$here/net_runner" -f "$here/head.nst" -d "$data" -o "$here/trained.nst" "$@"
