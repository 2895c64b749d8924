//! Weights between u2seg and PyTorch. Runs the Python blocks of docs/PYTORCH.md; `U2SEG_PYTHON` names the interpreter
//! (default `python3`). `build.rs` has the tests ignored by name where it lacks the packages.

use std::borrow::Cow;
use std::path::Path;
use std::process::Command;

use crate::common::program::*;
use crate::common::{folder, gpu};
use u2seg::low_level::domain::DomainPlan;
use u2seg::low_level::graph::DType;
use u2seg::low_level::imaging::Normalisation;
use u2seg::low_level::net;
use u2seg::low_level::net::{
    DomainAdapter, DomainNet, Downsample, Mode, Model, NetConfig, read_tensors,
};
use u2seg::low_level::segment::{Forward, ForwardSpec};

/// The code blocks of docs/PYTORCH.md in one language.
fn blocks(language: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PYTORCH.md");
    let text = std::fs::read_to_string(file).unwrap();
    let open = format!("```{language}\n");
    text.split(&open).skip(1).map(|rest| rest.split("```").next().unwrap().to_string()).collect()
}

/// A block of the page that contains a text.
fn block(language: &str, holding: &str) -> String {
    let mut found = blocks(language).into_iter().filter(|block| block.contains(holding));
    let block = found.next().unwrap_or_else(|| panic!("docs/PYTORCH.md has no {holding}"));
    assert_eq!(found.next(), None, "{holding} in two blocks");
    block
}

fn python(folder: &Path, code: &str) -> String {
    let interpreter = std::env::var("U2SEG_PYTHON").unwrap_or("python3".into());
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let mut command = Command::new(interpreter);
    command.args(["-B", "-c", code]).current_dir(folder).env("PYTHONPATH", peers);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{code}\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs the page's shell command in a folder.
fn import_as_documented(folder: &Path) {
    let line = block("sh", "u2seg import");
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("u2seg"));
    let output =
        Command::new(env!("CARGO_BIN_EXE_u2seg")).args(words).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Networks of every kind, of two domains with unlike channels, classes and pools where the mode has several.
fn networks() -> Vec<NetConfig> {
    let domains =
        [("A", 1, 3, [2, 3, 3]), ("B", 2, 2, [1, 2, 2])].map(|(name, channels, classes, pools)| {
            DomainNet { name: name.into(), channels, classes, pools }
        });
    [
        (Mode::Independent, DomainAdapter::Separable, Downsample::Full),
        (Mode::Shared, DomainAdapter::Separable, Downsample::Full),
        (Mode::Universal, DomainAdapter::Separable, Downsample::Full),
        (Mode::Universal, DomainAdapter::Separable, Downsample::Separable),
        (Mode::Universal, DomainAdapter::Series, Downsample::Full),
        (Mode::Universal, DomainAdapter::Parallel, Downsample::Full),
        (Mode::Universal, DomainAdapter::Series, Downsample::Separable),
    ]
    .map(|(mode, adapter, downsample)| {
        let count = if mode == Mode::Independent { 1 } else { 2 };
        let domains = domains[..count].to_vec();
        NetConfig { mode, adapter, downsample, base: 6, domains }
    })
    .into()
}

/// A plan for each domain: what `import` wants besides the weights.
fn plans(network: &NetConfig) -> Vec<DomainPlan> {
    let plan = |d: &DomainNet| {
        let classes: Vec<String> = (0..d.classes).map(|class| format!("class{class}")).collect();
        serde_json::json!({
            "name": d.name, "channels": d.channels, "classes": classes, "spacing": [1.0, 1.0, 1.0],
            "patch": PATCH, "pools": d.pools, "batch": 1, "normalisation": Normalisation::ZScore,
        })
    };
    network.domains.iter().map(|d| serde_json::from_value(plan(d)).unwrap()).collect()
}

const PATCH: [usize; 3] = [12, 16, 24];

/// Relative distance of u2seg's logits from those that Python wrote, the worst domain's.
fn distance(model: &Model, images: &Path) -> f64 {
    let (gpu, (tensors, _)) = (gpu(), read_tensors(images).unwrap());
    let of = |domain: usize| {
        let image = &tensors[&format!("image.{domain}")];
        let patch = [image.dims[2], image.dims[3], image.dims[4]];
        let weights = |name: &str| Ok(Cow::Borrowed(&model.weights[name].values[..]));
        let (network, samples) = (&model.network, image.dims[0]);
        let spec = ForwardSpec { network, domain, samples, patch, dtype: DType::F32 };
        let forward = Forward::new(&gpu, &spec, weights).unwrap();
        let logits = forward.run(&image.values).unwrap();
        let expected = &tensors[&format!("logits.{domain}")].values;
        assert_eq!(logits.len(), expected.len());
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let difference = norm(&mut logits.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
        difference / norm(&mut expected.iter().map(|v| f64::from(*v)))
    };
    (0..model.network.domains.len()).map(of).fold(0.0, f64::max)
}

/// Logits of `net` in float64 for random images, stored as float32.
const LOGITS: &str = "
import torch
from safetensors.torch import save_file

net.double()
made = {}
for d, domain in enumerate(net.domains):
    image = torch.randn(2, domain.channels, 12, 16, 24)
    made[f'image.{d}'], made[f'logits.{d}'] = image, net(image.double(), d).float().detach()
save_file(made, 'logits.safetensors')
";

/// The checkpoint gives the weights that the model gave.
const KEEP: &str = "
kept = {name: value.clone() for name, value in net.state_dict().items()}
for value in net.parameters():
    value.data.fill_(0)
";
const SAME: &str = "
assert all((kept[name] == value).all() for name, value in net.state_dict().items())
";

/// The network that `told` describes, with random weights in every tensor.
const RANDOM: &str = "
import torch

torch.manual_seed(1)
domains = [Domain(d['channels'], d['classes'], tuple(d['pools'])) for d in told['domains']]
net = U2Net(told['mode'], told['adapter'], told['base'], domains, told['downsample'])
for name, value in net.named_parameters():
    if value.dim() == 1:
        value.data += 0.2 * torch.randn_like(value)
";

/// float32 against float64; the published network in float32 is up to 2e-5 away.
const NEAR: f64 = 1e-4;

#[test]
#[cfg_attr(not(python), ignore = "no Python with numpy and safetensors: set U2SEG_PYTHON")]
fn numpy_reads_and_writes_models() {
    for network in networks() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        let mut weights = std::collections::BTreeMap::new();
        for (at, spec) in net::parameters(&network).unwrap().into_iter().enumerate() {
            let value = |i: usize| ((i * 31 + at) % 97) as f32 / 97.0;
            let values = (0..spec.dims.iter().product()).map(value).collect();
            weights.insert(spec.name, net::Tensor { dims: spec.dims, values });
        }
        let model = Model {
            domains: plans(&network),
            network,
            weights,
            chosen: None,
            trained: Default::default(),
        };
        model.write(&file).unwrap();
        let plan = serde_json::to_vec(&model.domains).unwrap();
        std::fs::write(folder.path().join("plan.json"), plan).unwrap();
        let check = "
for name, array in tensors.items():
    print(name, *array.shape)
";
        let listed = python(folder.path(), &(block("python", "safetensors.numpy") + check));
        let expected: std::collections::BTreeSet<String> = model
            .weights
            .iter()
            .map(|(name, t)| {
                t.dims.iter().fold(name.clone(), |line, size| format!("{line} {size}"))
            })
            .collect();
        assert_eq!(
            listed.lines().map(String::from).collect::<std::collections::BTreeSet<_>>(),
            expected
        );
        import_as_documented(folder.path());
        let back = Model::read(&file).unwrap();
        assert!(back.weights == model.weights, "{:?}", model.network);
        assert_eq!(back.network.mode, model.network.mode);
        assert_eq!(back.domains, model.domains);
    }
}

#[test]
#[cfg_attr(not(pytorch), ignore = "no Python with PyTorch: set U2SEG_PYTHON")]
#[cfg_attr(not(golden_files), ignore = "no golden files: set U2SEG_GOLDEN")]
fn the_network_in_pytorch_is_the_published_one() {
    let code = "
import json, pathlib
from safetensors.torch import load_file
from u2net import DomainPlan, U2Net

for file in sorted(pathlib.Path('.').glob('*.json')):
    told, tensors = json.loads(file.read_text()), load_file(file.with_suffix('.safetensors'))
    domains = [Domain(d['channels'], d['classes'], tuple(told['pools'])) for d in told['domains']]
    adapter = (told['adapter'] or '').removesuffix('_adapter')
    net = U2Net(told['mode'], adapter, told['base_channels'], domains)
    state = {name[6:]: value for name, value in tensors.items() if name.startswith('state.')}
    net.load_state_dict(state, strict=True)
    net.double()
    for d in range(len(domains)):
        logits, published = net(tensors[f'image.{d}'].double(), d), tensors[f'logits.{d}'].double()
        print(file.stem, ((logits - published).norm() / published.norm()).item())
";
    let printed = python(&folder("U2SEG_GOLDEN", "golden"), code);
    assert!(printed.lines().count() >= 4, "{printed}");
    for line in printed.lines() {
        // what storing the published logits as float32 costs
        let distance: f64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(distance < 1e-7, "{line}");
    }
}

#[test]
#[cfg_attr(not(pytorch), ignore = "no Python with PyTorch: set U2SEG_PYTHON")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn state_dicts_of_pytorch_give_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let home = |index: usize| folder.path().join(index.to_string());
    let page = block("python", "save_file(net.state_dict()");
    let mut code = String::from("import json, os\nfrom u2net import Domain, U2Net\n");
    for (index, network) in networks().iter().enumerate() {
        let (home, told) = (home(index), serde_json::to_string(network).unwrap());
        std::fs::create_dir(&home).unwrap();
        let json = serde_json::to_vec(&plans(network)).unwrap();
        std::fs::write(home.join("plan.json"), json).unwrap();
        code += &format!("os.chdir({home:?})\ntold = json.loads('{told}')\n{RANDOM}{page}{LOGITS}");
    }
    python(folder.path(), &code);
    for (index, network) in networks().into_iter().enumerate() {
        import_as_documented(&home(index));
        let model = Model::read(&home(index).join("model.safetensors")).unwrap();
        let NetConfig { mode, downsample, base, ref domains, .. } = network;
        let read = &model.network;
        assert_eq!((read.mode, read.downsample, read.base), (mode, downsample, base));
        assert_eq!(&read.domains, domains);
        let far = distance(&model, &home(index).join("logits.safetensors"));
        assert!(far < NEAR, "{network:?}: {far:e}");
    }
}

#[test]
#[cfg_attr(not(pytorch), ignore = "no Python with PyTorch: set U2SEG_PYTHON")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn trained_models_and_checkpoints_load_into_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 2, 90.0);
    let modes = [
        ("universal", "separable"),
        ("universal", "series"),
        ("universal", "parallel"),
        ("independent", "separable"),
    ];
    let run = |mode: &str, adapter: &str| folder.path().join(format!("{mode}-{adapter}"));
    let mut code = String::from("import os\n");
    let (page, checkpoint) = (block("python", "of_model"), block("python", "last.safetensors"));
    for (mode, adapter) in modes {
        let more = ["--steps", "4", "--mode", mode, "--adapter", adapter];
        succeed(&strs(&train(&[&data], &run(mode, adapter), &more)));
        code +=
            &format!("os.chdir({:?})\n{page}{KEEP}{checkpoint}{SAME}{LOGITS}", run(mode, adapter));
    }
    python(folder.path(), &code);
    for (mode, adapter) in modes {
        let model = Model::read(&run(mode, adapter).join("model.safetensors")).unwrap();
        let far = distance(&model, &run(mode, adapter).join("logits.safetensors"));
        assert!(far < NEAR, "{mode} {adapter}: {far:e}");
    }
}
