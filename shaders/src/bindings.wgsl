// What every kernel of the verification sees: one bind group, the same for all of them. Twin: bindings.rs.
//
//   binding  name        unit per signature     who writes it
//   0        params      -                      host
//   1        keys        8 + 1 + 1 + 4 words    host: compressed public keys; then places; then the list (see memory.wgsl);
//                                               then z and the equations (see equation.wgsl)
//   2        signatures  16 words               host: R, then s
//   3        messages    8 words, or blocks     host: ids; or SHA-512 blocks (hash_blocks.wgsl)
//   4        scalars     16 words               hash: digits of k, digits of s
//   5        points      40 words               decode, ladder, finish: four field elements, packed; behind the rows,
//                                               18 words per resident key: x, then the key's 8 words
//   6        tables      320 words              table: the multiples 1 .. 8 of -A, four field elements each; before that,
//                                               what the equations' kernels pass on
//   7        base        120 words per entry    host: multiples of the base point, three field elements each
//   8        flags       1 word                 every kernel; the verdict in the end; behind the rows a word per equation
//
// Words are little-endian as the bytes lie in memory. A kernel that runs with more invocations than there are rows
// returns at once in the surplus ones.

struct Params {
    /// Rows (signatures) in this dispatch.
    rows: u32,
    /// finish: rows that one invocation inverts together; decode: 0 for public keys, 1 for R; equations: their number.
    option: u32,
    /// finish: number of invocations = distance between the rows of one invocation. decode of public keys: where the
    /// list begins in `keys`, in vectors; equations: where z does.
    lanes: u32,
    /// Where the places begin in `keys`, in vectors: after the keys of all rows of the batch.
    places: u32,
    /// SHA-512's 80 round constants, as (low, high) pairs. Here, because arrays of constants are slow on some drivers.
    round_constants: array<vec4<u32>, 40>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> keys: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> signatures: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> messages: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> scalars: array<u32>;
@group(0) @binding(5) var<storage, read_write> points: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> tables: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read> base: array<vec2<u32>>;
@group(0) @binding(8) var<storage, read_write> flags: array<u32>;

/// flags: a check that needs no curve arithmetic failed (s not below l, A or R no point): the signature is invalid.
const FLAG_INVALID = 1u;
/// flags: Q = s B - k A encodes to exactly the bytes of R: the signature is valid.
const FLAG_VALID = 2u;

fn words_of(a: vec4<u32>, b: vec4<u32>) -> array<u32, 8> {
    return array<u32, 8>(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w);
}
