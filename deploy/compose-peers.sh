#!/usr/bin/env bash
# The peers of a cluster's nodes by their names in compose.yaml, from its genesis: one KEY@node-N:7273 a line.
#
#   deploy/compose-peers.sh CLUSTER_DIR > deploy/peers
set -euo pipefail
dir=${1:?the directory of a cluster, as weft cluster init makes it}
weft=${WEFT_BIN:-weft}
"$weft" genesis show "$dir/genesis.bin" | awk '$1 == "lane" { print $3 "@node-" $2 ":7273" }'
