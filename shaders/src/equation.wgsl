// The batch equation's memory and shapes. Twin: equation.rs.
//
// An equation is [8] (sum z s) B = [8] (sum z R + z k A) over a range of rows, with a random z of 128 bits for each. z and z k are taken in
// signed digits of 8 bits; for each of the 32 windows the points are summed up by digit (buckets), all windows at once. What the
// kernels pass on lies in `tables`, which the ladder fills anew afterwards; in words, of `rows` rows:
//
//   from                     what                                                          written by
//   0                        12 a row, rows side by side: digits of z k (8), of z (4)      weigh
//   12 rows                  60 a row: A, then R, as affine summands                       prepare
//   72 rows                  48 a row: by equation, by window: the points in the order     sort
//                            of their digits
//   120 rows                 80 a lane: the lane's sum, and room for another point         accumulate, fold
//
// In `keys`, from vector params.lanes on: z of every row (a vector each), then three vectors an equation: first row, number of rows,
// the word that means "it holds", 0; and the digits of sum z s, 16 bits each. params.option is the number of equations.
//
// An equation has 24 groups of 64 lanes. Groups 0 .. 15 have a window each, with the points of A and R. z has no more digits, so that
// the windows from 16 on have the points of A only, and two of them share a group.

const WINDOWS = 32u;
const GROUPS = 24u;
const LANE_PAIRS = 40u;
/// Groups of 64 rows in the largest equation.
const EQUATION_GROUPS = 16u;

struct Share {
    /// The window.
    window: u32,
    /// Points in it.
    points: u32,
    /// The window's first lane in its group, and its lanes.
    first: u32,
    width: u32,
    /// The lane's part of the points.
    start: u32,
    end: u32,
}

/// First row, rows, the word that means "it holds".
fn equation_rows(equation: u32) -> vec4<u32> {
    return keys[params.lanes + params.rows + 3u * equation];
}

/// What a lane of a group of an equation with `rows` rows has to do.
fn share_of(group: u32, lane: u32, rows: u32) -> Share {
    var s: Share;
    if (group < 16u) {
        s.window = group;
        s.points = 2u * rows;
        s.first = 0u;
        s.width = 64u;
    } else {
        s.window = 2u * group - 16u + (lane >> 5u);
        s.points = rows;
        s.first = lane & 32u;
        s.width = 32u;
    }
    let part = (s.points + s.width - 1u) / s.width;
    s.start = min((lane - s.first) * part, s.points);
    s.end = min(s.start + part, s.points);
    return s;
}

/// Where the points of a window begin, in words: of an equation that begins with row `first` and has `rows` rows.
fn order_of(first: u32, rows: u32, window: u32) -> u32 {
    return 72u * params.rows + 48u * first + rows * select(16u + window, 2u * window, window < 16u);
}

/// Where the lane's two points begin, in pairs of words.
fn lane_place(equation: u32, group: u32, lane: u32) -> u32 {
    return 60u * params.rows + ((equation * GROUPS + group) * 64u + lane) * LANE_PAIRS;
}

/// Where the affine summand of a row's A (0) or R (1) begins, in pairs of words.
fn summand_place(row: u32, point: u32) -> u32 {
    return 6u * params.rows + (2u * row + point) * 15u;
}

fn word_load(at: u32) -> u32 {
    return tables[at >> 1u][at & 1u];
}

fn word_store(at: u32, word: u32) {
    tables[at >> 1u][at & 1u] = word;
}
