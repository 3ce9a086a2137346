// Kernel: the x coordinate of a public key (option 0, to the row's place) or of R (option 1, to slot 3). Twin: decode.rs.
//
// Option 0 runs for the rows of a list that the host made: those whose key is not resident, and one row for each entry
// that this batch fills. `rows` is then the list's length. An entry is filled whatever else is wrong with its row, since
// other rows count on it; the key's words are stored with x, so that no row ever takes another key's x for its own.
//
// ZIP-215: any 255 bits are taken as y, reduced or not; x = 0 may carry either sign. What has no x on the curve is no
// point, and its signature is invalid. x^2 = u / v, u = y^2 - 1, v = d y^2 + 1, and
// x = u v^3 (u v^7)^((p - 5) / 8), times sqrt(-1) if that gives -u / v.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.rows) {
        return;
    }
    var row = id.x;
    var place = row * 20u + 15u;
    var resident = false;
    var w: array<u32, 8>;
    if (params.option == 0u) {
        row = keys[params.lanes + (id.x >> 2u)][id.x & 3u];
        place = place_of(row);
        resident = is_resident(row, place);
        w = key_words(row);
    } else {
        w = r_words(row);
    }
    // Public keys: only rows not yet invalid, and entries. R: only rows that finish.wgsl left open.
    if (flags[row] != 0u && !resident) {
        return;
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
    place_store(place, x);
    if (resident) {
        unroll for (var i = 0u; i < 4u; i++) {
            points[place + 5u + i] = vec2<u32>(w[2u * i], w[2u * i + 1u]);
        }
    }
}
