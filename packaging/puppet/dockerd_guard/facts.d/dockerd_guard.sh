#!/bin/sh
# The fact dockerd_guard: the output of `dockerd-guard status --format json`, null without one.
status=$(dockerd-guard status --format json 2> /dev/null)
echo "{\"dockerd_guard\": ${status:-null}}"
