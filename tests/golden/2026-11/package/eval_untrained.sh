#!/bin/sh
# How good the head is as it was packed: ./eval_untrained.sh DATA   (DATA: a folder of BMP or PPM files for each class)
data=${1:?"usage: $0 DATA"}
shift
here=$(dirname "$0")
exec "$here/net_runner" -f "$here/head.nst" -d "$data" -c 0 "$@"
