//! The weights that a training starts from where they are those of another model: taken by name, all of them trained on.

use std::path::Path;

use super::session::Session;
use crate::base::{Error, Result};
use crate::engine::graph::Region;
use crate::net::{Model, NetConfig, Tensor, names_in};

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
/// name, else of the one at its place. A tensor that has more inputs or outputs than the model's keeps it as a part: further
/// inputs begin at zero, so that they change nothing at first, further outputs as they were drawn. What did not fit is logged.
///
/// # Errors
///
/// Where the model cannot be read, or nothing of it fits.
pub(super) fn start_from(file: &Path, network: &NetConfig, session: &Session) -> Result<()> {
    let model = Model::read(file)?;
    let names = names_in(network, &model.network)?;
    let mut taken = Taken::default();
    let drawn = session.read(Region::Weights)?;
    for (stored, values) in session.store().params().iter().zip(drawn) {
        let name = &stored.spec.name;
        let own = Tensor { dims: stored.spec.dims.clone(), values };
        let theirs = names.get(name).and_then(|name| model.weights.get(name));
        match theirs.and_then(|theirs| over(&own, theirs)) {
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

/// The values of `own` with `theirs` written over the part that it is as large as; none where it is larger anywhere, or where
/// anything but outputs (axis 0) and inputs (axis 1) differs.
fn over(own: &Tensor, theirs: &Tensor) -> Option<Vec<f32>> {
    if theirs.dims == own.dims {
        return Some(theirs.values.clone());
    }
    let (rank, kept) = (own.dims.len(), own.dims.len().min(2));
    let fits = theirs.dims.len() == rank
        && own.dims[kept..] == theirs.dims[kept..]
        && own.dims.iter().zip(&theirs.dims).all(|(own, theirs)| theirs <= own);
    if !fits {
        return None;
    }
    let inner: usize = own.dims[kept..].iter().product();
    let inputs = |dims: &[usize]| if rank > 1 { dims[1] } else { 1 };
    let (wide, narrow) = (inputs(&own.dims) * inner, inputs(&theirs.dims) * inner);
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
        // outputs 2 to 3, inputs 1 to 2, two taps
        let (own, theirs) = (tensor(&[3, 2, 2], 100.0), tensor(&[2, 1, 2], 1.0));
        let values = over(&own, &theirs).unwrap();
        assert_eq!(values, [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0, 108.0, 109.0, 110.0, 111.0]);
        let (own, theirs) = (tensor(&[3], 100.0), tensor(&[2], 1.0));
        assert_eq!(over(&own, &theirs).unwrap(), [1.0, 2.0, 102.0]);
        assert_eq!(over(&own, &own).unwrap(), own.values);
        for other in [&[4][..], &[2, 1], &[]] {
            assert_eq!(over(&own, &tensor(other, 0.0)), None);
        }
        assert_eq!(over(&tensor(&[3, 2, 3], 0.0), &tensor(&[3, 2, 1], 0.0)), None);
    }
}
