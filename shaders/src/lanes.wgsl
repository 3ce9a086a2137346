// Points in the lanes' places, and as summands. Twin: lanes.rs.

fn lanes_load_fe(at: u32) -> Fe {
    var w: array<u32, 10>;
    unroll for (var i = 0u; i < 5u; i++) {
        let pair = tables[at + i];
        w[2u * i] = pair.x;
        w[2u * i + 1u] = pair.y;
    }
    return fe_unpack(w);
}

fn lanes_store_fe(at: u32, a: Fe) {
    let w = fe_pack(a);
    unroll for (var i = 0u; i < 5u; i++) {
        tables[at + i] = vec2<u32>(w[2u * i], w[2u * i + 1u]);
    }
}

fn lanes_load(at: u32) -> Point {
    var p: Point;
    p.x = lanes_load_fe(at);
    p.y = lanes_load_fe(at + 5u);
    p.z = lanes_load_fe(at + 10u);
    p.t = lanes_load_fe(at + 15u);
    return p;
}

fn lanes_store(at: u32, p: Point) {
    lanes_store_fe(at, p.x);
    lanes_store_fe(at + 5u, p.y);
    lanes_store_fe(at + 10u, p.z);
    lanes_store_fe(at + 15u, p.t);
}

/// A point as a summand.
fn summand_of(p: Point) -> Summand {
    var q: Summand;
    q.y_plus_x = fe_tidy(fe_add(p.y, p.x));
    q.y_minus_x = fe_tidy(fe_sub(p.y, p.x));
    q.z2 = fe_tidy(fe_add(p.z, p.z));
    q.t2d = fe_mul(fe_bound(p.t), FE_2D);
    return q;
}
