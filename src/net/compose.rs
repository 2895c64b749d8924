//! Models put together and taken apart by domain: shared weights stay as they are, a domain's own layers change their index.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;

use fnv::FnvHasher;

use super::{Model, NetConfig, Tensor, network, parameters};
use crate::base::{Error, Result};
use crate::engine::graph::{Graph, Layout, ParamSpec, Scope};

/// Parameters of one domain's network in the order in which it is built; the same order whatever other domains there are.
fn domain_parameters(config: &NetConfig, index: usize) -> Result<Vec<ParamSpec>> {
    let domain = config.domain(index)?;
    let mut graph = Graph::new();
    let spatial = domain.pools.map(|pools| 1 << pools);
    let image = graph.input("image", Layout::new(1, domain.channels, spatial));
    network(&mut graph, config, index, image)?;
    Ok(graph.params().to_vec())
}

/// The names that the parameters of `network` have in another network, where it has such: shared ones the same, those of a domain
/// as of the other network's domain of its name, else of the one at its place.
pub fn names_in(network: &NetConfig, other: &NetConfig) -> Result<HashMap<String, String>> {
    let mut names = HashMap::new();
    for (index, domain) in network.domains.iter().enumerate() {
        let same = other.domains.iter().position(|theirs| theirs.name == domain.name);
        let Some(place) = same.or((index < other.domains.len()).then_some(index)) else { continue };
        // this network's own domain as it would be called at that place
        let moved = NetConfig { domains: vec![domain.clone(); place + 1], ..network.clone() };
        let pairs = domain_parameters(network, index)?.into_iter();
        names.extend(
            pairs.zip(domain_parameters(&moved, place)?).map(|(own, moved)| (own.name, moved.name)),
        );
    }
    Ok(names)
}

/// FNV-1a over names, shapes and bits of tensors in order of their names.
pub fn hash<'a>(tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>) -> u64 {
    let mut hash = FnvHasher::default();
    for (name, tensor) in tensors {
        hash.write(name.as_bytes());
        tensor.dims.iter().for_each(|dim| hash.write(&(*dim as u64).to_le_bytes()));
        tensor.values.iter().for_each(|value| hash.write(&value.to_bits().to_le_bytes()));
    }
    hash.finish()
}

fn kind(n: &NetConfig) -> String {
    format!("{:?} {:?}, down-samplers {:?}, base {}", n.mode, n.adapter, n.downsample, n.base)
}

impl Model {
    /// The weights that all domains share.
    pub fn shared(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut shared = BTreeMap::new();
        for spec in parameters(&self.network)?.iter().filter(|p| p.scope == Scope::Shared) {
            if let Some(tensor) = self.weights.get(&spec.name) {
                shared.insert(spec.name.clone(), tensor.clone());
            }
        }
        Ok(shared)
    }

    /// One domain as a model of its own.
    pub fn export(&self, domain: usize) -> Result<Self> {
        let network = NetConfig {
            domains: vec![self.network.domain(domain)?.clone()],
            ..self.network.clone()
        };
        let old = domain_parameters(&self.network, domain)?;
        let new = domain_parameters(&network, 0)?;
        let mut weights = BTreeMap::new();
        for (from, to) in old.iter().zip(&new) {
            weights.insert(to.name.clone(), self.tensor(&from.name)?.clone());
        }
        let plan = self.domains.get(domain).cloned();
        let plan = plan.ok_or_else(|| Error::Internal("a domain without a plan".into()))?;
        let own = self.trained.get_key_value(&plan.name);
        let trained = own.map(|(name, own)| (name.clone(), own.clone())).into_iter().collect();
        Ok(Self { network, domains: vec![plan], weights, chosen: None, trained })
    }

    /// This model with the domains of `other` added, which must have been trained on the same shared weights; those stay
    /// bit for bit.
    pub fn merge(&self, other: &Self) -> Result<Self> {
        self.check_merge(other)?;
        let mut merged = Self { chosen: None, ..self.clone() };
        merged.network.domains.extend(other.network.domains.iter().cloned());
        merged.domains.extend(other.domains.iter().cloned());
        merged.trained.extend(other.trained.clone());
        for index in 0..other.network.domains.len() {
            let place = self.network.domains.len() + index;
            let theirs = domain_parameters(&other.network, index)?;
            let ours = domain_parameters(&merged.network, place)?;
            for (from, to) in theirs.iter().zip(&ours) {
                let tensor = other.tensor(&from.name)?;
                if to.scope != Scope::Shared {
                    merged.weights.insert(to.name.clone(), tensor.clone());
                } else if merged.tensor(&to.name)? != tensor {
                    return Err(foreign(&self.hash_of(&theirs)?, &other.hash_of(&theirs)?));
                }
            }
        }
        Ok(merged)
    }

    fn check_merge(&self, other: &Self) -> Result<()> {
        let (a, b) = (&self.network, &other.network);
        if (a.mode, a.adapter, a.downsample, a.base) != (b.mode, b.adapter, b.downsample, b.base) {
            return Err(Error::setting("add", kind(b), kind(a), "Merge models of one kind."));
        }
        if b.depth() > a.depth() {
            return Err(Error::setting(
                "add",
                format!("{} levels", b.depth()),
                format!("at most {}", a.depth()),
                "Train the new domain with fewer pools.",
            ));
        }
        for domain in &b.domains {
            if a.domains.iter().any(|d| d.name.eq_ignore_ascii_case(&domain.name)) {
                return Err(Error::setting(
                    "add",
                    format!("a second domain {}", domain.name),
                    "names of their own",
                    "Rename the dataset, or export the other domains first.",
                ));
            }
        }
        Ok(())
    }

    fn hash_of(&self, specs: &[ParamSpec]) -> Result<String> {
        let shared = specs.iter().filter(|spec| spec.scope == Scope::Shared);
        let tensors: BTreeMap<&String, &Tensor> =
            shared.map(|spec| Ok((&spec.name, self.tensor(&spec.name)?))).collect::<Result<_>>()?;
        Ok(format!("{:016x}", hash(tensors)))
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.weights.get(name).ok_or_else(|| Error::Internal(format!("the model lacks {name}")))
    }
}

fn foreign(ours: &str, theirs: &str) -> Error {
    Error::setting(
        "add",
        format!("a domain trained on other shared weights (hash {theirs})"),
        format!("hash {ours}"),
        "Adapt the new domain to this model with `adapt`, then merge.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Labels;
    use crate::domain::DomainPlan;
    use crate::imaging::Normalisation;
    use crate::net::{DomainAdapter, DomainNet, Downsample, Mode};

    fn model(names: &[(&str, [usize; 3])], own: f32) -> Model {
        let domains: Vec<DomainNet> = names
            .iter()
            .map(|(name, pools)| DomainNet {
                name: (*name).into(),
                channels: 1,
                classes: 2,
                pools: *pools,
            })
            .collect();
        let plans = domains
            .iter()
            .map(|d| DomainPlan {
                name: d.name.clone(),
                channels: 1,
                labels: Labels::plain(["background", &d.name]),
                spacing: [1.0; 3],
                patch: [16; 3],
                pools: d.pools,
                batch: 1,
                normalisation: Normalisation::ZScore,
                resampling: Default::default(),
                crop: None,
                preset: None,
                weighting: Default::default(),
                clean_up: Vec::new(),
            })
            .collect();
        let network = NetConfig {
            mode: Mode::Universal,
            adapter: DomainAdapter::Separable,
            downsample: Downsample::Full,
            base: 4,
            domains,
        };
        let weights = parameters(&network)
            .unwrap()
            .iter()
            .map(|spec| {
                let value = if spec.scope == Scope::Shared { 0.5 } else { own };
                let values = vec![value; spec.packing.elements()];
                (spec.name.clone(), Tensor { dims: spec.dims.clone(), values })
            })
            .collect();
        Model { network, domains: plans, weights, chosen: None, trained: BTreeMap::new() }
    }

    #[test]
    fn merging_adds_a_domain_and_export_takes_it_out() {
        let old = model(&[("a", [3, 3, 3]), ("b", [2, 3, 3])], 1.0);
        let new = model(&[("c", [1, 2, 2])], 2.0);
        let merged = old.merge(&new).unwrap();
        assert_eq!(merged.domains.len(), 3);
        for (name, tensor) in &old.weights {
            assert_eq!(&merged.weights[name], tensor, "{name}");
        }
        assert_eq!(merged.export(2).unwrap(), new);
        assert_eq!(merged.export(0).unwrap(), old.export(0).unwrap());
        let expected = parameters(&merged.network).unwrap().len();
        assert_eq!(merged.weights.len(), expected);
    }

    #[test]
    fn a_domain_takes_the_names_of_its_namesake() {
        let [one, two] = [&["b", "c"][..], &["a", "b", "x"]].map(|names| {
            let names: Vec<_> = names.iter().map(|name| (*name, [2; 3])).collect();
            model(&names, 1.0).network
        });
        let names = names_in(&one, &two).unwrap();
        assert_eq!(names["in_tr_list.0.op1.0.weight"], "in_tr_list.1.op1.0.weight");
        // nobody is called c: the one at its place
        assert_eq!(names["in_tr_list.1.op1.0.weight"], "in_tr_list.1.op1.0.weight");
        assert_eq!(names["down_samps.0.op1.conv.weight"], "down_samps.0.op1.conv.weight");
        let known = parameters(&two).unwrap();
        assert!(names.values().all(|name| known.iter().any(|spec| spec.name == *name)));
    }

    #[test]
    fn foreign_shared_weights_are_refused() {
        let old = model(&[("a", [2; 3])], 1.0);
        let mut new = model(&[("b", [2; 3])], 2.0);
        let name = "down_samps.0.op1.conv.weight";
        new.weights.get_mut(name).unwrap().values[0] = 0.25;
        let error = old.merge(&new).unwrap_err().to_string();
        assert!(error.contains("hash"), "{error}");
        let deep = model(&[("b", [3; 3])], 2.0);
        assert!(old.merge(&deep).unwrap_err().to_string().contains("levels"));
        assert!(old.merge(&old).unwrap_err().to_string().contains("second domain"));
    }
}
