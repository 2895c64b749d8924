//! Every shader is valid alone, on every backend, and within the portable limits.

use u2seg::shader::{KernelKey, sources, validate};

#[test]
fn every_shader_is_valid_at_its_defaults() {
    let mut failures = Vec::new();
    for (file, _) in sources() {
        if let Err(error) = validate(&KernelKey::new(file)) {
            failures.push(error.to_string());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
