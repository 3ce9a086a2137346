#!/usr/bin/env bash
# Holds the files of a run against the official readers of HdrHistogram.
#
#   loadgen/check-hdr.sh WEFT
#
# WEFT is the binary. A short run against the null target writes report, interval log (.hlog) and percentile text (.hgrm). Then
#   * the Java reader (HistogramLogProcessor; Debian: libhdrhistogram-java; another jar: HDR_JAR=FILE) sums the log, and its percentile text
#     must be ours: the same levels, mean, deviation, maximum and total, and at each level the same value, or that of the next count (where
#     a level falls on a whole count, the two implementations round it to one side or the other);
#   * the JavaScript reader (npm: hdr-histogram-js; where it was installed: HDR_NODE_PATH=DIR/node_modules), if there, decodes every interval
#     and the report's own histogram, which must agree in count, mean, percentiles and maximum.
# The run has no warm-up: the log holds it too, and the percentile text does not.
set -euo pipefail

weft=${1:?the binary}
jar=${HDR_JAR:-/usr/share/java/hdrhistogram.jar}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

"$weft" loadgen run world-20b --target null --rate 20000 --seconds 4 --warm-up 0 --lag-p99-max-ms 1000 --quiet \
    --json "$out/run.json" --hlog "$out/run.hlog" --hgrm "$out/run.hgrm" >/dev/null

# Values are microseconds; the tool divides by its ratio to have milliseconds.
java -cp "$jar" org.HdrHistogram.HistogramLogProcessor -i "$out/run.hlog" -outputValueUnitRatio 1000 >"$out/java.hgrm"
rows() { grep -E '^ +[0-9]|Max|Mean' "$1" | sed 's/ *$//'; }
rows "$out/java.hgrm" >"$out/java.rows"
rows "$out/run.hgrm" >"$out/our.rows"
[[ $(wc -l <"$out/our.rows") -gt 20 ]] || { echo "java: too few lines to compare" >&2; exit 1; }
paste -d '|' "$out/java.rows" "$out/our.rows" | awk -F '|' '
    $1 == $2 { same++; next }
    {
        n = split($1, theirs, " "); m = split($2, ours, " ")
        # Values beside each other in a bucket have one line: counts of neighbouring buckets, or of a value or two more.
        off = ours[1] > theirs[1] ? ours[1] - theirs[1] : theirs[1] - ours[1]
        more = ours[3] > theirs[3] ? ours[3] - theirs[3] : theirs[3] - ours[3]
        if ($1 ~ /#/ || n != m || theirs[2] != ours[2] || more > 3 && off > 0.001 * theirs[1] + 0.001) {
            print "java: got " $1 "\njava: we have " $2 > "/dev/stderr"; bad = 1
        }
        close_by++
    }
    END { printf "java: %d lines of the percentile text are the same, %d of the next count or bucket\n", same, close_by; exit bad }'
grep -Eo 'Total count += +[0-9]+' "$out/our.rows"

if [[ -z ${HDR_NODE_PATH:-} ]]; then
    echo "js: skipped (HDR_NODE_PATH is not set)"
    exit
fi
NODE_PATH=$HDR_NODE_PATH node - "$out/run.json" "$out/run.hlog" <<'JS'
const fs = require("fs");
const hdr = require("hdr-histogram-js");
hdr.initWebAssemblySync?.();
const [report, log] = [JSON.parse(fs.readFileSync(process.argv[2])), fs.readFileSync(process.argv[3], "utf8")];
const decode = (text) => hdr.decodeFromCompressedBase64(text);
const whole = decode(report.histograms.latency);
const sum = hdr.build({ bitBucketSize: 64, lowestDiscernibleValue: 1, highestTrackableValue: 600000000, numberOfSignificantValueDigits: 3 });
const reader = new hdr.HistogramLogReader(log);
let intervals = 0;
for (let next = reader.nextIntervalHistogram(); next; next = reader.nextIntervalHistogram()) { sum.add(next); intervals += 1; }
const want = report.latency_us;
for (const [name, got] of [["report", whole], ["log", sum]]) {
    const pairs = [["count", got.totalCount, want.count], ["max", got.maxValue, want.max], ["mean", Math.round(got.mean * 1e3) / 1e3, want.mean],
        ["p50", got.getValueAtPercentile(50), want.p50], ["p90", got.getValueAtPercentile(90), want.p90],
        ["p99", got.getValueAtPercentile(99), want.p99], ["p99.9", got.getValueAtPercentile(99.9), want.p999],
        ["p99.99", got.getValueAtPercentile(99.99), want.p9999]];
    for (const [what, theirs, ours] of pairs) {
        if (Math.abs(theirs - ours) > 0.001) { console.error(`js: ${what} of the ${name} is ${theirs}, the report says ${ours}`); process.exit(1); }
    }
}
console.log(`js: ${intervals} intervals and the report's histogram agree with its figures (${want.count} values)`);
JS
