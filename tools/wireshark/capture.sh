#!/bin/sh
# Captures VMDT traffic and shows it with the dissector beside this script.
#
#   capture.sh [-i INTERFACE] [-p CONTROL_PORT] [-w FILE.pcapng]
#
# Datagrams are found by their first octets on any port; the control port (8080 unless said) is
# captured beside them. With -w packets go into a file, without they are shown as they come.
set -eu

interface=any
port=8080
file=
while getopts i:p:w:h option; do
  case $option in
    i) interface=$OPTARG ;;
    p) port=$OPTARG ;;
    w) file=$OPTARG ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
command -v tshark >/dev/null || { echo "capture.sh: tshark is needed (package tshark)" >&2; exit 1; }

# "VMDT" are the first octets of the datagram, behind the UDP header of 8 octets
filter="(udp[8:4] = 0x564d4454) or (tcp port $port)"
set -- -i "$interface" -f "$filter" -X "lua_script:$here/vmdt.lua" -o tcp.try_heuristic_first:TRUE
if [ -n "$file" ]; then
  exec tshark "$@" -w "$file"
fi
exec tshark "$@" -Y 'vmdt or vmdt_control'
