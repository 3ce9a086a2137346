// Kernel: the x coordinate of a public key (option 0, to slot 0) or of R (option 1, to slot 3). Twin: decode.rs.
//
// ZIP-215: any 255 bits are taken as y, reduced or not; x = 0 may carry either sign. What has no x on the curve is no
// point, and its signature is invalid. x^2 = u / v, u = y^2 - 1, v = d y^2 + 1, and
// x = u v^3 (u v^7)^((p - 5) / 8), times sqrt(-1) if that gives -u / v.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    // Public keys: only rows not yet invalid. R: only rows that finish.wgsl left open.
    if (flags[row] != 0u) {
        return;
    }
    var w: array<u32, 8>;
    if (params.option == 0u) {
        w = key_words(row);
    } else {
        w = r_words(row);
    }
    var one: Fe;
    one[0u] = 1u;
    let yy = fe_sq(fe_from_words(w));
    let u = fe_tidy(fe_sub(yy, one));
    let v = fe_add(fe_mul(yy, FE_D), one);
    let v3 = fe_mul(fe_sq(v), v);
    let uv7 = fe_mul(fe_mul(fe_sq(v3), v), u);
    var x = fe_mul(power_252_3(uv7), fe_mul(v3, u));
    let vxx = fe_mul(fe_sq(x), v);
    if (!fe_is_zero(fe_sub(vxx, u))) {
        if (!fe_is_zero(fe_add(vxx, u))) {
            flags[row] = FLAG_INVALID;
            return;
        }
        x = fe_mul(x, FE_SQRT_M1);
    }
    x = fe_canonical(x);
    if ((x[0u] & 1u) != (w[7u] >> 31u)) {
        var zero: Fe;
        x = fe_tidy(fe_sub(zero, x));
    }
    points_store(row, 3u * params.option, x);
}
