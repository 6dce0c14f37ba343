#!/usr/bin/env bash
# Checks what can be checked without running containers. Tools that are missing are named.
set -euo pipefail
cd "$(dirname "$0")"
for file in compose.yaml prometheus.yml grafana/provisioning/*/*.yaml; do
  python3 -c 'import sys, yaml; yaml.safe_load(open(sys.argv[1]))' "$file" 2>/dev/null \
    || { python3 -c 'import yaml' 2>/dev/null && { echo "BAD $file"; exit 1; } || echo "SKIPPED $file: no YAML parser"; continue; }
  echo "ok  $file"
done
for file in grafana/dashboards/*.json; do
  python3 -m json.tool "$file" >/dev/null
  echo "ok  $file"
done
if docker compose version >/dev/null 2>&1; then
  docker compose -f compose.yaml config --quiet && echo "ok  compose.yaml (docker compose config)"
else
  echo "SKIPPED docker compose config: not installed"
fi
if command -v hadolint >/dev/null; then hadolint Dockerfile && echo "ok  Dockerfile"; else echo "SKIPPED hadolint: not installed"; fi
if command -v systemd-analyze >/dev/null; then
  unit="$(mktemp -d)/vmdt-server.service"
  # the program need not be installed for its unit to be read
  sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' vmdt-server.service > "$unit"
  systemd-analyze verify "$unit" && echo "ok  vmdt-server.service"
  rm -r "$(dirname "$unit")"
else
  echo "SKIPPED systemd-analyze: not installed"
fi
