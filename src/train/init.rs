//! The weights that a training starts from where they are those of another model: taken by name, all of them trained on.

use std::path::Path;

use super::session::Session;
use crate::base::{Error, Result};
use crate::engine::graph::Region;
use crate::models;
use crate::net::{NetConfig, Tensor, names_in};

/// What became of the tensors of a network that starts from another model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Taken {
    /// Number of those that are the model's.
    whole: usize,
    /// Names of those that hold the model's and more.
    extended: Vec<String>,
    /// Names of those that stay as they were drawn.
    drawn: Vec<String>,
}

/// Writes the weights of a model over those that a session drew, wherever they fit: of a domain those of the model's domain of its
/// name, else of the one at its place. A first layer with more channels and a last one with more classes keep the model's as a
/// part: further inputs begin at zero, so that they change nothing at first, further classes as they were drawn. What did not fit is
/// logged.
///
/// # Errors
///
/// Where the model cannot be read, or nothing of it fits.
pub(super) fn start_from(file: &Path, network: &NetConfig, session: &Session) -> Result<()> {
    let model = models::read(file)?;
    let names = names_in(network, &model.network)?;
    let mut taken = Taken::default();
    let drawn = session.read(Region::Weights)?;
    for (stored, values) in session.store().params().iter().zip(drawn) {
        let name = &stored.spec.name;
        let own = Tensor { dims: stored.spec.dims.clone(), values };
        let theirs = names.get(name).and_then(|name| model.weights.get(name));
        match theirs.and_then(|theirs| over(&own, theirs, growing(name))) {
            Some(values) => {
                session.write(Region::Weights, name, &values)?;
                match theirs.is_some_and(|theirs| theirs.dims == own.dims) {
                    true => taken.whole += 1,
                    false => taken.extended.push(name.clone()),
                }
            }
            None => taken.drawn.push(name.clone()),
        }
    }
    taken.tell(file, &model.network)
}

impl Taken {
    fn tell(&self, file: &Path, theirs: &NetConfig) -> Result<()> {
        let Self { whole, extended, drawn } = self;
        if *whole == 0 {
            let NetConfig { mode, adapter, base, .. } = theirs;
            let found = format!(
                "a model of which no weight fits (mode {mode:?}, adapter {adapter:?}, base {base})"
            );
            return Err(Error::file(
                file,
                found.to_lowercase(),
                "a model of a like network",
                "Give `mode`, `adapter` and `base` as the model has them.",
            ));
        }
        let all = whole + extended.len() + drawn.len();
        log::info!("{}: {whole} of {all} tensors are taken as they are", file.display());
        if !extended.is_empty() {
            log::warn!("{}: taken and extended: {}", file.display(), extended.join(", "));
        }
        if !drawn.is_empty() {
            log::warn!("{}: did not fit, and begin anew: {}", file.display(), drawn.join(", "));
        }
        Ok(())
    }
}

/// The axis along which a tensor may be larger than the model's: a first layer along its inputs, a last one along its classes.
fn growing(name: &str) -> Option<usize> {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    match () {
        () if starts(&["in_tr_list."]) => Some(1),
        () if starts(&["out_tr_list.", "dSupers."]) => Some(0),
        () => None,
    }
}

/// The values of `own` with `theirs` written over the part that they are; none where they differ along another axis than the one
/// that may be longer, or that is shorter.
fn over(own: &Tensor, theirs: &Tensor, growing: Option<usize>) -> Option<Vec<f32>> {
    if theirs.dims == own.dims {
        return Some(theirs.values.clone());
    }
    let axis = growing.filter(|axis| *axis < own.dims.len() && *axis < theirs.dims.len())?;
    let mut as_theirs = own.dims.clone();
    as_theirs[axis] = theirs.dims[axis];
    if as_theirs != theirs.dims || theirs.dims[axis] > own.dims[axis] {
        return None;
    }
    let row = |dims: &[usize]| dims[1..].iter().product::<usize>();
    let (wide, narrow) = (row(&own.dims), row(&theirs.dims));
    let mut values = own.values.clone();
    for (own, theirs) in values.chunks_mut(wide).zip(theirs.values.chunks(narrow)) {
        let (old, new) = own.split_at_mut(narrow);
        old.copy_from_slice(theirs);
        new.fill(0.0);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[usize], first: f32) -> Tensor {
        let count: usize = dims.iter().product();
        Tensor { dims: dims.to_vec(), values: (0..count).map(|i| first + i as f32).collect() }
    }

    #[test]
    fn tensors_that_grew_hold_those_that_they_were() {
        // inputs 1 to 2, two taps
        let (own, theirs) = (tensor(&[2, 2, 2], 100.0), tensor(&[2, 1, 2], 1.0));
        let values = over(&own, &theirs, growing("in_tr_list.0.op1.0.weight")).unwrap();
        assert_eq!(values, [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0]);
        // classes 1 to 2
        let (own, theirs) = (tensor(&[2, 2, 1], 100.0), tensor(&[1, 2, 1], 1.0));
        let values = over(&own, &theirs, growing("out_tr_list.0.conv1.weight")).unwrap();
        assert_eq!(values, [1.0, 2.0, 102.0, 103.0]);
        let (own, theirs) = (tensor(&[3], 100.0), tensor(&[2], 1.0));
        let bias = "dSupers.0.0.op1.0.bias";
        assert_eq!(over(&own, &theirs, growing(bias)).unwrap(), [1.0, 2.0, 102.0]);
        assert_eq!(over(&own, &own, None).unwrap(), own.values);
        // shorter, of another rank, and what stands in the middle of the network
        for dims in [&[4][..], &[2, 1], &[]] {
            assert_eq!(over(&own, &tensor(dims, 0.0), growing(bias)), None);
        }
        assert_eq!(over(&own, &theirs, growing("down_blocks.0.op1.conv.bias")), None);
    }
}
