//! How often the loops of each kernel run, by its parameters.

use u2seg::low_level::graph::Dispatch;
use u2seg::{Error, Result};

/// A dispatch's parameters and its kernel's constants by name.
struct Sizes<'a> {
    dispatch: &'a Dispatch,
    lanes: f64,
}

impl Sizes<'_> {
    fn get(&self, name: &str) -> Result<f64> {
        let Dispatch { kernel, params, .. } = self.dispatch;
        let number = |(n, v): &(&'static str, u32)| (*n == name).then_some(f64::from(*v));
        let found = params
            .iter()
            .find_map(number)
            .or_else(|| kernel.consts.iter().find_map(number))
            .or_else(|| kernel.overrides.iter().find_map(number));
        found.ok_or_else(|| Error::Internal(format!("{} has no {name}", kernel.label())))
    }

    fn or(&self, name: &str, default: f64) -> f64 {
        self.get(name).unwrap_or(default)
    }

    fn product(&self, names: &[&str]) -> Result<f64> {
        names.iter().map(|name| self.get(name)).product()
    }

    /// Trips of a lane that takes every `lanes`-th of `count`, `each` at a time.
    fn shared(&self, count: f64, each: f64) -> f64 {
        (count / (self.lanes * each)).ceil()
    }

    /// Whether what a thread stages stands in the code.
    fn is_streamed(&self) -> bool {
        self.dispatch.kernel.sections.contains(&"STREAMED")
    }

    /// Trips of the loop that stages the box of a 3³ convolution.
    fn staging(&self) -> Result<f64> {
        let axis = |count: f64, stride: &str, taps: &str| {
            Ok::<f64, Error>((count - 1.0) * self.or(stride, 1.0) + self.get(taps)?)
        };
        let (lines, columns) = (self.product(&["TH", "LINES"])?, self.product(&["TW", "VOX"])?);
        let voxels = axis(self.get("TD")?, "SD", "KD")?
            * axis(lines, "SH", "KH")?
            * axis(columns, "SW", "KW")?;
        Ok(self.shared(voxels, 4.0))
    }

    /// The same of an input gradient, whose box holds what one parity reads.
    fn staging_of_parity(&self) -> Result<f64> {
        let planes = self.get("TD")? + self.get("RD")? - 1.0;
        let rows = self.product(&["TH", "LINES"])? + self.get("RH")? - 1.0;
        let step = self.get("VOX")? / self.get("SW")?;
        let columns = (self.get("TW")? - 1.0) * step + self.get("ROW")?;
        Ok(self.shared(planes * rows * columns, 4.0))
    }
}

/// Halvings of a tree over `lanes`.
fn tree(lanes: f64) -> f64 {
    lanes.log2().ceil()
}

/// Trips of each loop within one of the loop around it, in the order in which they begin.
///
/// # Errors
///
/// For kernels that are not known here.
pub fn trips(dispatch: &Dispatch, threads: u64) -> Result<Vec<f64>> {
    let s = Sizes { dispatch, lanes: threads as f64 };
    let classes = |s: &Sizes| Ok::<f64, Error>((s.get("classes")? / 4.0).ceil());
    // subgroups of 64 lanes
    let teams = (s.lanes / 64.0 / 64.0).ceil();
    Ok(match dispatch.kernel.file {
        "add.wgsl" => vec![s.get("run")?],
        "conv.wgsl" => vec![s.get("ins")?, s.or("KD", 3.0), s.or("KH", 3.0) / s.or("BATCH", 1.0)],
        "conv_input.wgsl" => {
            // of the position's own parity
            let own = |taps: &str, stride: &str| s.or(taps, 3.0) / s.or(stride, 1.0);
            vec![s.get("ins")?, own("KD", "SD"), own("KH", "SH")]
        }
        "conv_weight.wgsl" => vec![s.get("rows")?, s.get("quads")?],
        "conv_staged.wgsl" => {
            let planes = s.get("KD")?;
            // in one of the planes
            let mut trips = vec![s.get("split_ins")?.min(s.get("ins")?), planes];
            trips.extend((!s.is_streamed()).then_some(s.staging()? / planes));
            trips
        }
        "conv_input_staged.wgsl" => {
            // of one parity; of the rows of taps that stand in the code a parity has its own
            let own = |taps: &str, stride: &str| Ok::<f64, Error>(s.get(taps)? / s.or(stride, 1.0));
            let planes = own("KD", "SD")?.max(1.0) * own("KH", "SH")? / s.get("RH")?;
            let mut trips = vec![s.get("split_ins")?.min(s.get("ins")?), planes];
            trips.extend((!s.is_streamed()).then_some(s.staging_of_parity()? / planes));
            trips
        }
        "conv_sum.wgsl" => vec![(s.get("splits")? / 4.0).ceil()],
        "conv_weight_tiled.wgsl" => {
            let shares = s.get("SHARES")?;
            vec![s.get("each")?, (s.product(&["BD", "BH"])? / shares).ceil()]
        }
        "depthwise.wgsl" => vec![s.get("chunk")? + 2.0, teams],
        "depthwise_weight.wgsl" => vec![s.get("columns")?, s.get("d")? + 1.0],
        "depthwise_weight_lanes.wgsl" => vec![s.get("each")?, s.get("depth")? + 2.0],
        "loss_partial.wgsl" => {
            let blocks = classes(&s)?;
            vec![s.shared(s.get("chunk")?, 1.0), blocks, blocks, 1.0]
        }
        "loss_grad.wgsl" => vec![classes(&s)?, classes(&s)?, 1.0, classes(&s)?, 1.0],
        "loss_finish.wgsl" => {
            let rows = (s.get("rows")? / s.lanes).ceil();
            vec![1.0, rows, tree(s.lanes), 1.0, 1.0, s.get("classes")?, s.get("classes")?]
        }
        "norm_stats_whole.wgsl" | "norm_grad_whole.wgsl" => {
            vec![s.shared(s.get("chunk")?, 4.0), teams]
        }
        "norm_once.wgsl" => vec![s.shared(s.get("voxels")?, 4.0), teams],
        "norm_grad_once.wgsl" => {
            vec![s.get("samples")?, s.shared(s.get("voxels")?, 4.0), teams]
        }
        "norm_finish.wgsl" => vec![s.shared(s.get("chunks")?, 1.0), tree(s.lanes)],
        "norm_grad_finish.wgsl" => {
            let rounds = (s.get("samples")? / s.or("ROWS", 1.0)).ceil();
            vec![rounds, (s.get("parts")? / 64.0).ceil(), tree(64.0)]
        }
        "pointwise.wgsl" => [vec![s.get("ins")?], vec![teams; 8]].concat(),
        "pointwise_shared.wgsl" => {
            let (stage, side) = (s.or("STAGE", 4.0), s.or("SIDE", 8.0));
            let staged = |own: &str| Ok::<f64, Error>(s.shared(stage * side * s.get(own)?, 1.0));
            vec![(s.get("ins")? / stage).ceil(), staged("VOX")?, staged("OUT")?, stage]
        }
        "pointwise_weight.wgsl" => vec![(s.get("run")? / 8.0).ceil()],
        "pointwise_split.wgsl" => {
            // a subgroup jumps over the rows that it is not in
            vec![1.0, (s.get("ins")? / s.or("SLICES", 4.0) / s.get("STEP")?).ceil()]
        }
        "pointwise_weight_tiled.wgsl" => {
            let (chunk, shares) = (s.get("CHUNK")?, s.get("SHARES")?);
            let mut trips = vec![(s.get("run")? / chunk).ceil(), chunk / shares];
            // a tree and a store for each block
            trips.extend([tree(shares), 1.0].repeat(16));
            trips
        }
        "reduce_lanes.wgsl" => {
            let lanes = s.get("LANES")?;
            vec![(s.get("group")?.min(s.get("rows")?) / lanes).ceil(), tree(lanes)]
        }
        "reduce_several.wgsl" => {
            // a workgroup has one of the sets: their mean, by workgroups
            let sets = ["_0", "_1", "_2", "_3"].into_iter();
            let known = sets.map_while(|set| {
                let get = |name: &str| s.get(&format!("{name}{set}")).ok();
                Some([get("runs")?, get("rows")?, get("lanes")?])
            });
            let (mut groups, mut rows) = (0.0, 0.0);
            for [runs, of, lanes] in known {
                groups += runs;
                rows += runs * (of / lanes).ceil();
            }
            vec![rows / groups, tree(64.0)]
        }
        "upsample_grad.wgsl" => Vec::new(),
        file => {
            let message = format!("nothing says how often the loops of {file} run");
            return Err(Error::Internal(message));
        }
    })
}
