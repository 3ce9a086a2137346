// Kernel: the encoding of Q against the bytes of R. Twin: finish.rs.
//
// An honest signer's R is the canonical encoding of exactly Q, so equal bytes prove the signature valid; unequal bytes
// prove nothing under ZIP-215 (another encoding, a small-order difference), and the row stays open for exact.wgsl.
// Encoding needs 1/Z: each invocation inverts the product of `option` rows' Z at once (Montgomery's trick), rows
// `lanes` apart so that neighbours read neighbours. Slot 3 holds the products.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let lane = id.x;
    if (lane >= params.lanes) {
        return;
    }
    var product: Fe;
    product[0u] = 1u;
    var count = 0u;
    var open = 0u;
    for (var i = 0u; i < params.option; i++) {
        let row = i * params.lanes + lane;
        if (row >= params.rows) {
            break;
        }
        count++;
        if (flags[row] == 0u) {
            open++;
            points_store(row, 3u, product);
            product = fe_mul(fe_bound(product), points_load(row, 2u));
        }
    }
    if (open == 0u) {
        return;
    }
    // product^(p - 2) = (product^(2^252 - 3))^8 * product^3.
    var inverse = power_252_3(product);
    for (var i = 0u; i < 3u; i++) {
        inverse = fe_sq(fe_bound(inverse));
    }
    inverse = fe_mul(fe_bound(inverse), fe_mul(fe_sq(fe_bound(product)), fe_bound(product)));
    for (var i = 0u; i < count; i++) {
        let row = (count - 1u - i) * params.lanes + lane;
        if (flags[row] != 0u) {
            continue;
        }
        let z_inverse = fe_mul(fe_bound(inverse), points_load(row, 3u));
        inverse = fe_mul(fe_bound(inverse), points_load(row, 2u));
        let x = fe_canonical(fe_mul(points_load(row, 0u), z_inverse));
        var w = fe_to_words(fe_canonical(fe_mul(points_load(row, 1u), z_inverse)));
        w[7u] |= x[0u] << 31u;
        let r = r_words(row);
        var differ = 0u;
        unroll for (var j = 0u; j < 8u; j++) {
            differ |= w[j] ^ r[j];
        }
        if (differ == 0u) {
            flags[row] = FLAG_VALID;
        }
    }
}
