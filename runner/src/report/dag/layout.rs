//! Where things stand in a layered drawing, from top to bottom.
//!
//! Sugiyama's steps: layers by longest path, bends where an edge passes a layer, an order with few
//! crossings by barycentres, then places that pull neighbours together. The edges of one source
//! share their bends. Units are the caller's: characters or pixels.

use super::Picture;

/// A drawing's skeleton.
pub struct Layout {
    /// The picture's items, in its order, then bends.
    pub points: Vec<Point>,
    /// Points of each layer, from left to right.
    pub layers: Vec<Vec<usize>>,
    /// Pieces of edges, each from a layer to the next.
    pub segments: Vec<(usize, usize)>,
}

/// An item or a bend.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Its layer, from the top.
    pub layer: usize,
    /// Its middle.
    pub x: f64,
    /// Its width; 0 for a bend.
    pub width: f64,
    /// The item whose output this is: itself, or that of the bend's edge.
    pub source: usize,
    /// Not an item.
    pub bend: bool,
}

/// Lays a picture out; `widths` are of its items, `gap` is kept between neighbours.
pub fn layout(picture: &Picture, widths: &[f64], gap: f64) -> Layout {
    let mut layout = layers(picture, widths);
    let n = layout.points.len();
    let (mut above, mut below) = (vec![Vec::new(); n], vec![Vec::new(); n]);
    for &(a, b) in &layout.segments {
        above[b].push(a);
        below[a].push(b);
    }
    order(&mut layout, &above, &below);
    place(&mut layout, &above, &below, gap);
    layout
}

fn layers(picture: &Picture, widths: &[f64]) -> Layout {
    let n = picture.items.len();
    let mut layer = vec![0; n];
    // Edges come sorted by what they enter, and that in topological order.
    for (from, to, _) in &picture.edges {
        layer[*to] = layer[*to].max(layer[*from] + 1);
    }
    // What nothing feeds stands right above what it feeds first.
    let mut fed = vec![false; n];
    let mut first = vec![usize::MAX; n];
    for (from, to, _) in &picture.edges {
        fed[*to] = true;
        first[*from] = first[*from].min(layer[*to]);
    }
    for item in (0..n).filter(|&item| !fed[item] && first[item] != usize::MAX) {
        layer[item] = first[item] - 1;
    }
    let depth = layer.iter().max().map_or(0, |deepest| deepest + 1);
    let mut points: Vec<Point> = (0..n)
        .map(|i| Point { layer: layer[i], x: 0.0, width: widths[i], source: i, bend: false })
        .collect();
    let mut segments = Vec::new();
    // The bends of each source so far, from its own layer down.
    let mut chains: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
    for &(from, to, _) in &picture.edges {
        let steps = layer[to] - layer[from];
        while chains[from].len() < steps {
            let last = chains[from][chains[from].len() - 1];
            let layer = points[last].layer + 1;
            points.push(Point { layer, x: 0.0, width: 0.0, source: from, bend: true });
            segments.push((last, points.len() - 1));
            chains[from].push(points.len() - 1);
        }
        segments.push((chains[from][steps - 1], to));
    }
    let mut layers = vec![Vec::new(); depth];
    for (i, point) in points.iter().enumerate() {
        layers[point.layer].push(i);
    }
    Layout { points, layers, segments }
}

/// Sweeps down and up, keeping the order with the fewest crossings.
fn order(layout: &mut Layout, above: &[Vec<usize>], below: &[Vec<usize>]) {
    let mut rank = vec![0.0; layout.points.len()];
    let number = |layers: &[Vec<usize>], rank: &mut [f64]| {
        for layer in layers {
            for (i, &point) in layer.iter().enumerate() {
                rank[point] = i as f64;
            }
        }
    };
    number(&layout.layers, &mut rank);
    let mut best = (crossings(layout, below, &rank), layout.layers.clone());
    for sweep in 0..16 {
        let down = sweep % 2 == 0;
        let sides = if down { above } else { below };
        let depth = layout.layers.len();
        for step in 0..depth {
            let layer = &mut layout.layers[if down { step } else { depth - 1 - step }];
            let key = |&point: &usize| {
                let near = &sides[point];
                let sum: f64 = near.iter().map(|&p| rank[p]).sum();
                if near.is_empty() { rank[point] } else { sum / near.len() as f64 }
            };
            layer.sort_by(|a, b| key(a).total_cmp(&key(b)));
            for (i, &point) in layer.iter().enumerate() {
                rank[point] = i as f64;
            }
        }
        let crossed = crossings(layout, below, &rank);
        if crossed < best.0 {
            best = (crossed, layout.layers.clone());
        }
    }
    layout.layers = best.1;
}

/// Pairs of segments that cross; 0 where there are too many to look at.
fn crossings(layout: &Layout, below: &[Vec<usize>], rank: &[f64]) -> usize {
    let mut crossed = 0;
    for layer in &layout.layers {
        let pieces: Vec<(f64, f64)> =
            layer.iter().flat_map(|&a| below[a].iter().map(move |&b| (rank[a], rank[b]))).collect();
        if pieces.len() > 400 {
            continue;
        }
        for (i, a) in pieces.iter().enumerate() {
            crossed += pieces[i + 1..].iter().filter(|b| (a.0 - b.0) * (a.1 - b.1) < 0.0).count();
        }
    }
    crossed
}

/// Moves points towards their neighbours as far as their own layer lets them.
fn place(layout: &mut Layout, above: &[Vec<usize>], below: &[Vec<usize>], gap: f64) {
    for layer in layout.layers.clone() {
        settle(layout, &layer, gap, |layout, point| layout.points[point].x);
    }
    let depth = layout.layers.len();
    for sweep in 0..32 {
        let down = sweep % 2 == 0;
        for step in 0..depth {
            let layer = layout.layers[if down { step } else { depth - 1 - step }].clone();
            settle(layout, &layer, gap, |layout, point| {
                let (first, second) = match down {
                    true => {
                        (mean(layout, point, &above[point]), mean(layout, point, &below[point]))
                    }
                    false => {
                        (mean(layout, point, &below[point]), mean(layout, point, &above[point]))
                    }
                };
                match (first, second) {
                    // The last sweeps weigh both sides, for symmetry.
                    (Some((a, v)), Some((b, w))) if sweep > 15 => (a * v + b * w) / (v + w),
                    (Some((x, _)), _) | (None, Some((x, _))) => x,
                    (None, None) => layout.points[point].x,
                }
            });
        }
    }
    let left = layout.points.iter().map(|p| p.x - p.width / 2.0).fold(f64::INFINITY, f64::min);
    layout.points.iter_mut().for_each(|point| point.x -= left);
}

/// The mean place of neighbours and its weight: long edges pull hardest, so that they run straight.
fn mean(layout: &Layout, point: usize, near: &[usize]) -> Option<(f64, f64)> {
    let weight = |other: usize| match (layout.points[point].bend, layout.points[other].bend) {
        (true, true) => 8.0,
        (true, false) | (false, true) => 2.0,
        (false, false) => 1.0,
    };
    let sum: f64 = near.iter().map(|&other| layout.points[other].x * weight(other)).sum();
    let weights: f64 = near.iter().map(|&other| weight(other)).sum();
    (!near.is_empty()).then(|| (sum / weights, weights))
}

/// The places nearest to those wished for, in least squares, that keep order and gap: isotonic
/// regression by pooling neighbours.
fn settle(layout: &mut Layout, layer: &[usize], gap: f64, wish: impl Fn(&Layout, usize) -> f64) {
    let mut offset = 0.0;
    let mut offsets = Vec::with_capacity(layer.len());
    // Blocks of points pressed together: the weighted sum of wishes, the weight, how many.
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for (i, &point) in layer.iter().enumerate() {
        if let Some(&left) = i.checked_sub(1).and_then(|i| layer.get(i)) {
            offset += (layout.points[left].width + layout.points[point].width) / 2.0 + gap;
        }
        offsets.push(offset);
        let weight = if layout.points[point].bend { 4.0 } else { 1.0 };
        blocks.push(((wish(layout, point) - offset) * weight, weight, 1));
        while let [.., (a, v, n), (b, w, m)] = blocks[..] {
            if a / v <= b / w {
                break;
            }
            blocks.truncate(blocks.len() - 2);
            blocks.push((a + b, v + w, n + m));
        }
    }
    let places = blocks.iter().flat_map(|&(sum, weight, n)| std::iter::repeat_n(sum / weight, n));
    for ((&point, offset), place) in layer.iter().zip(offsets).zip(places) {
        layout.points[point].x = place + offset;
    }
}
