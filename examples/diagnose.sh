#!/usr/bin/env bash
# A diagnostic agent: it looks at a machine through Provara and follows up on what it finds.
#
#   AGENT_HUB_TOKEN=… examples/diagnose.sh
#
# It holds an agent's token and no shell of its own on the machine: each look is a plan that a person decides on.
# PROVARA names the binary (`provara` by default). Thresholds: DISK_FULL_PERCENT (85), MEMORY_LOW_PERCENT (10).
set -uo pipefail

provara=${PROVARA:-provara}
disk_full=${DISK_FULL_PERCENT:-85}
memory_low=${MEMORY_LOW_PERCENT:-10}
findings=()
failed=0

# look NOTE SCRIPT: proposes the script, waits, and prints its output. Returns its exit code; 125 means that Provara ended it.
look() {
    "$provara" run --timeout 60 --note "$1" -- "$2"
}

# Says why there is nothing to work with. A person's no is an answer, and the next look is still worth asking for.
gave_up() {
    printf '   no result (exit code %s)\n' "$2"
    findings+=("$1: not looked at (exit code $2)")
    failed=1
}

step() {
    printf '\n== %s\n' "$1"
}

step 'How full are the disks?'
if disks=$(look 'Which file systems are nearly full?' 'df -P -k'); then
    printf '%s\n' "$disks"
    full=$(awk -v limit="$disk_full" '
        NR > 1 && $1 !~ /^(tmpfs|devtmpfs|overlay_ro|squashfs)$/ { used = $5; sub("%", "", used); if (used + 0 >= limit) print $6 }
    ' <<<"$disks")
    if [ -z "$full" ]; then
        findings+=("disk: every file system is below ${disk_full} %")
    else
        while IFS= read -r mount; do
            findings+=("disk: $mount is at or above ${disk_full} %")
            # The name came from the machine and goes into a script: quoted, so that it stays a name.
            printf -v name '%q' "$mount"
            step "What fills $mount?"
            look "$mount is nearly full: what is large there?" "du -xk --max-depth=1 $name 2>/dev/null | sort -rn | head -n 8" ||
                gave_up "what fills $mount" $?
        done <<<"$full"
    fi
else
    gave_up disk $?
fi

step 'Is there memory left?'
if memory=$(look 'How much memory is available?' 'cat /proc/meminfo'); then
    free=$(awk '/^MemTotal:/ { total = $2 } /^MemAvailable:/ { left = $2 } END { if (total) printf "%d", left * 100 / total }' <<<"$memory")
    grep -E '^(MemTotal|MemAvailable|SwapTotal|SwapFree):' <<<"$memory"
    if [ -z "$free" ]; then
        findings+=('memory: the machine does not say how much is available')
    elif [ "$free" -lt "$memory_low" ]; then
        findings+=("memory: only $free % is available")
        step 'Which processes use it?'
        look "only $free % of memory is available: who uses it?" 'ps -eo pid,rss,comm --sort=-rss | head -n 10' ||
            gave_up 'users of memory' $?
    else
        findings+=("memory: $free % is available")
    fi
else
    gave_up memory $?
fi

step 'How busy is it?'
if load=$(look 'What is the load, on how many processors?' 'cat /proc/loadavg; nproc'); then
    printf '%s\n' "$load"
    # More waiting than there are processors means that somebody waits.
    busy=$(awk 'NR == 1 { load = $1 } NR == 2 { cpus = $1 } END { if (cpus && load > cpus) print "yes"; else print "no" }' <<<"$load")
    if [ "$busy" = yes ]; then
        findings+=('processor: more work than processors')
        step 'Who is at work?'
        look 'the load is above the number of processors: who is at work?' 'ps -eo pid,pcpu,comm --sort=-pcpu | head -n 10' ||
            gave_up 'busy processes' $?
    else
        findings+=('processor: keeps up')
    fi
else
    gave_up processor $?
fi

printf '\n== Findings\n'
printf ' - %s\n' "${findings[@]}"
exit "$failed"
