#!/usr/bin/env bash
# Builds the fuzz targets with the stable toolchain and runs them one after the other.
#
#   fuzz/run.sh [SECONDS] [TARGET...]   each target (default: all) for SECONDS (default: 30); fails at the first finding
#   fuzz/run.sh --canary                passes only if the target that must fail does fail
#   fuzz/run.sh --list                  names the targets
#
# Neither cargo-fuzz nor a nightly compiler is needed: libfuzzer-sys brings libFuzzer, and coverage comes from LLVM's
# SanitizerCoverage pass, which every rustc has. WEFT_FUZZ_SANITIZER=address adds AddressSanitizer (that flag is
# unstable, so RUSTC_BOOTSTRAP=1 is set for it): worth its slowness for the crates with unsafe code.
#
# A target's corpus starts from seeds/TARGET/ and grows in corpus/TARGET/; an input that fails is left in
# artifacts/TARGET/ and is run again by: <path of the binary> artifacts/TARGET/<file>
set -euo pipefail
cd "$(dirname "$0")"

host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-target}
rss_mb_max=2048     # the decoders hold one input and a few copies of it: far below this
input_s_max=10      # one input takes microseconds; this is a hang
input_bytes_max=20000   # longer than the longest message

targets() {
    sed -n '/^\[\[bin\]\]/,/^$/s/^name = "\(.*\)"$/\1/p' Cargo.toml
}

build() {
    local flags=(
        --cfg fuzzing
        -Cpasses=sancov-module
        -Cllvm-args=-sanitizer-coverage-level=4
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
        -Cllvm-args=-sanitizer-coverage-pc-table
        -Cllvm-args=-sanitizer-coverage-trace-compares
        -Ccodegen-units=1
    )
    # RUSTFLAGS takes the place of the flags in .cargo/config.toml: say them again.
    case $host in
        x86_64-*) flags+=('--cfg=curve25519_dalek_backend="avx512"') ;;
    esac
    if [[ -n ${WEFT_FUZZ_SANITIZER:-} ]]; then
        export RUSTC_BOOTSTRAP=1
        flags+=("-Zsanitizer=$WEFT_FUZZ_SANITIZER")
    fi
    local bins=() name
    for name in "$@"; do bins+=(--bin "$name"); done
    # --target keeps the flags away from build scripts and procedural macros.
    RUSTFLAGS="${flags[*]}" cargo build --release --locked --target "$host" "${bins[@]}"
}

# Runs one target; its log goes to artifacts/TARGET/log.
fuzz() {
    local name=$1 seconds=$2 corpus=()
    mkdir -p "corpus/$name" "artifacts/$name"
    corpus=("corpus/$name")
    [[ -d seeds/$name ]] && corpus+=("seeds/$name")
    "$target_dir/$host/release/$name" "${corpus[@]}" \
        -max_total_time="$seconds" -timeout="$input_s_max" -rss_limit_mb="$rss_mb_max" -max_len="$input_bytes_max" \
        -artifact_prefix="artifacts/$name/" -print_final_stats=1 >"artifacts/$name/log" 2>&1
}

stat() {
    sed -n "s/^stat::$2: *//p" "artifacts/$1/log" | tail -1
}

case ${1:-} in
    --list)
        targets
        exit
        ;;
    --canary)
        build canary
        rm -rf corpus/canary artifacts/canary
        if fuzz canary 60; then
            echo "canary            survived: the fuzzer finds nothing, do not trust it" >&2
            exit 1
        fi
        if ! grep -q 'the canary sings' artifacts/canary/log || ! ls artifacts/canary/crash-* >/dev/null 2>&1; then
            tail -20 artifacts/canary/log >&2
            echo "canary            failed for another reason" >&2
            exit 1
        fi
        echo "canary            found, as it must be"
        exit
        ;;
esac

seconds=30
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    seconds=$1
    shift
fi
all=$(targets | grep -vx canary)
chosen=("$@")
[[ $# -gt 0 ]] || mapfile -t chosen <<<"$all"
for name in "${chosen[@]}"; do
    grep -qx -- "$name" <<<"$all" || { echo "no target '$name'; there are:" $all >&2; exit 2; }
done

build "${chosen[@]}"
for name in "${chosen[@]}"; do
    if ! fuzz "$name" "$seconds"; then
        tail -40 "artifacts/$name/log" >&2
        printf '%-18s FAILED after %s executions: artifacts/%s\n' "$name" "$(stat "$name" number_of_executed_units)" "$name" >&2
        exit 1
    fi
    executions=$(stat "$name" number_of_executed_units)
    [[ ${executions:-0} -gt 0 ]] || { echo "$name ran nothing" >&2; exit 1; }
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "artifacts/$name/log" | tail -1)
    printf '%-18s %12s executions in %s s, %s edges, no finding\n' "$name" "$executions" "$seconds" "$edges"
done
