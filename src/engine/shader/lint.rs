//! What naga does not catch and portable WebGPU forbids.

use naga::{Block, Expression, Function, Handle, Module, Statement};

use super::reflect::{BindingKind, Reflection};

const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_WORKGROUP_BYTES: u32 = 16 << 10;
const MAX_INVOCATIONS: u32 = 256;

/// Complaints about a module: too many storage buffers, too much workgroup memory, too many invocations, a barrier under
/// non-uniform control flow, a return before a barrier.
pub fn lint(module: &Module, reflection: &Reflection) -> Vec<String> {
    let mut complaints = Vec::new();
    let storage = reflection.bindings.iter().filter(|b| b.kind != BindingKind::Uniform).count();
    if storage > MAX_STORAGE_BUFFERS {
        complaints.push(format!("{storage} storage buffers, at most {MAX_STORAGE_BUFFERS}"));
    }
    if reflection.workgroup_bytes > MAX_WORKGROUP_BYTES {
        complaints.push(format!("{} bytes of workgroup memory", reflection.workgroup_bytes));
    }
    let invocations: u32 = reflection.workgroup.iter().product();
    if invocations > MAX_INVOCATIONS {
        complaints.push(format!("{invocations} invocations a workgroup"));
    }
    for entry in &module.entry_points {
        let flow = Flow { module, function: &entry.function, arguments: builtins(entry) };
        flow.walk(&entry.function.body, true, &mut false, &mut complaints);
    }
    // of what functions are given nothing is known to be uniform
    for (_, function) in module.functions.iter() {
        let flow = Flow { module, function, arguments: Vec::new() };
        flow.walk(&function.body, true, &mut false, &mut complaints);
    }
    complaints
}

/// Whether a block, or a function that it calls, waits for others of its workgroup or subgroup.
fn meets(module: &Module, block: &Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::ControlBarrier(_)
        | Statement::MemoryBarrier(_)
        | Statement::WorkGroupUniformLoad { .. }
        | Statement::SubgroupGather { .. }
        | Statement::SubgroupBallot { .. }
        | Statement::SubgroupCollectiveOperation { .. } => true,
        Statement::Call { function, .. } => meets(module, &module.functions[*function].body),
        Statement::Block(inner) => meets(module, inner),
        Statement::If { accept, reject, .. } => meets(module, accept) || meets(module, reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| meets(module, &case.body)),
        Statement::Loop { body, continuing, .. } => {
            meets(module, body) || meets(module, continuing)
        }
        _ => false,
    })
}

/// Whether each argument of the entry point is the same for the whole workgroup.
fn builtins(entry: &naga::EntryPoint) -> Vec<bool> {
    use naga::BuiltIn::{NumSubgroups, NumWorkGroups, WorkGroupId};
    entry
        .function
        .arguments
        .iter()
        .map(|argument| {
            let Some(naga::Binding::BuiltIn(builtin)) = argument.binding else { return false };
            matches!(builtin, WorkGroupId | NumWorkGroups | NumSubgroups)
        })
        .collect()
}

struct Flow<'a> {
    module: &'a Module,
    function: &'a Function,
    arguments: Vec<bool>,
}

impl Flow<'_> {
    fn walk(
        &self,
        block: &Block,
        uniform: bool,
        returned: &mut bool,
        complaints: &mut Vec<String>,
    ) {
        for statement in block.iter() {
            match statement {
                Statement::ControlBarrier(_) | Statement::MemoryBarrier(_) => {
                    if !uniform {
                        complaints.push("a barrier under a non-uniform branch".into());
                    }
                    if *returned {
                        complaints.push("a return before a barrier".into());
                    }
                }
                Statement::SubgroupGather { .. }
                | Statement::SubgroupBallot { .. }
                | Statement::SubgroupCollectiveOperation { .. }
                    if !uniform =>
                {
                    complaints.push("a subgroup operation under a non-uniform branch".into());
                }
                Statement::WorkGroupUniformLoad { .. } if !uniform => {
                    complaints.push("a uniform load under a non-uniform branch".into());
                }
                Statement::Call { function, .. } => {
                    let called = &self.module.functions[*function].body;
                    if (!uniform || *returned) && meets(self.module, called) {
                        complaints.push(
                            "a function that waits for others under a non-uniform branch or after a return".into(),
                        );
                    }
                }
                Statement::Return { .. } => *returned = true,
                Statement::Block(inner) => self.walk(inner, uniform, returned, complaints),
                Statement::If { condition, accept, reject } => {
                    let uniform = uniform && self.is_uniform(*condition, 0);
                    self.walk(accept, uniform, returned, complaints);
                    self.walk(reject, uniform, returned, complaints);
                }
                Statement::Switch { selector, cases } => {
                    let uniform = uniform && self.is_uniform(*selector, 0);
                    for case in cases {
                        self.walk(&case.body, uniform, returned, complaints);
                    }
                }
                Statement::Loop { body, continuing, .. } => {
                    let uniform = uniform && self.exits_uniformly(body);
                    self.walk(body, uniform, returned, complaints);
                    self.walk(continuing, uniform, returned, complaints);
                }
                _ => {}
            }
        }
    }

    /// Whether every condition under which the loop breaks is uniform.
    fn exits_uniformly(&self, body: &Block) -> bool {
        body.iter().all(|statement| match statement {
            Statement::If { condition, accept, reject } => {
                let breaks = |block: &Block| {
                    block.iter().any(|s| matches!(s, Statement::Break | Statement::Continue))
                };
                !(breaks(accept) || breaks(reject)) || self.is_uniform(*condition, 0)
            }
            Statement::Block(inner) => self.exits_uniformly(inner),
            _ => true,
        })
    }

    fn is_uniform(&self, expression: Handle<Expression>, depth: usize) -> bool {
        if depth > 64 {
            return false;
        }
        let uniform = |e: &Handle<Expression>| self.is_uniform(*e, depth + 1);
        match &self.function.expressions[expression] {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::Override(_)
            | Expression::ZeroValue(_)
            | Expression::WorkGroupUniformLoadResult { .. } => true,
            Expression::FunctionArgument(index) => {
                self.arguments.get(*index as usize).copied().unwrap_or(false)
            }
            Expression::GlobalVariable(handle) => {
                matches!(self.module.global_variables[*handle].space, naga::AddressSpace::Uniform)
            }
            Expression::LocalVariable(variable) => self.only_uniform_stores(*variable, depth),
            Expression::Load { pointer } => uniform(pointer),
            Expression::Access { base, index } => uniform(base) && uniform(index),
            Expression::AccessIndex { base, .. } => uniform(base),
            Expression::Splat { value, .. } => uniform(value),
            Expression::Unary { expr, .. } | Expression::As { expr, .. } => uniform(expr),
            Expression::Binary { left, right, .. } => uniform(left) && uniform(right),
            Expression::Select { condition, accept, reject } => {
                uniform(condition) && uniform(accept) && uniform(reject)
            }
            Expression::Math { arg, arg1, arg2, .. } => {
                uniform(arg)
                    && arg1.as_ref().is_none_or(uniform)
                    && arg2.as_ref().is_none_or(uniform)
            }
            Expression::Compose { components, .. } => components.iter().all(uniform),
            _ => false,
        }
    }

    /// Loop counters: a local variable whose stores are uniform apart from reading itself.
    fn only_uniform_stores(&self, variable: Handle<naga::LocalVariable>, depth: usize) -> bool {
        let mut stores = Vec::new();
        collect_stores(self.function, &self.function.body, variable, &mut stores);
        let initial = self.function.local_variables[variable].init;
        stores
            .into_iter()
            .chain(initial)
            .all(|value| self.steps_uniformly(value, variable, depth + 1))
    }

    fn steps_uniformly(
        &self,
        value: Handle<Expression>,
        variable: Handle<naga::LocalVariable>,
        depth: usize,
    ) -> bool {
        let expressions = &self.function.expressions;
        match &expressions[value] {
            Expression::Load { pointer } if matches!(expressions[*pointer], Expression::LocalVariable(v) if v == variable) => {
                true
            }
            Expression::Binary { left, right, .. } => {
                self.steps_uniformly(*left, variable, depth + 1)
                    && self.steps_uniformly(*right, variable, depth + 1)
            }
            _ => self.is_uniform(value, depth),
        }
    }
}

fn collect_stores(
    function: &Function,
    block: &Block,
    variable: Handle<naga::LocalVariable>,
    stores: &mut Vec<Handle<Expression>>,
) {
    for statement in block.iter() {
        match statement {
            Statement::Store { pointer, value } => {
                if matches!(function.expressions[*pointer], Expression::LocalVariable(v) if v == variable)
                {
                    stores.push(*value);
                }
            }
            Statement::Block(inner) => collect_stores(function, inner, variable, stores),
            Statement::If { accept, reject, .. } => {
                collect_stores(function, accept, variable, stores);
                collect_stores(function, reject, variable, stores);
            }
            Statement::Switch { cases, .. } => {
                for case in cases {
                    collect_stores(function, &case.body, variable, stores);
                }
            }
            Statement::Loop { body, continuing, .. } => {
                collect_stores(function, body, variable, stores);
                collect_stores(function, continuing, variable, stores);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(body: &str, globals: &str) -> String {
        let text = format!(
            "struct Params {{ n: u32 }}\n@group(0) @binding(0) var<uniform> params: Params;\n{globals}\nvar<workgroup> s: array<f32, 64>;\n@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) wg: vec3<u32>) {{ {body} }}"
        );
        let module = naga::front::wgsl::parse_str(&text).unwrap();
        let reflection = super::super::reflect::reflect_module("t", &module).unwrap();
        lint(&module, &reflection).join("; ")
    }

    #[test]
    fn uniform_barriers_pass() {
        let body = "for (var h = 32u; h > 0u; h = h / 2u) { if (lane < h) { s[lane] = 1.0; } workgroupBarrier(); } if (wg.x < params.n) { workgroupBarrier(); }";
        assert_eq!(complaints(body, ""), "");
    }

    #[test]
    fn barriers_under_lanes_and_after_returns_are_found() {
        assert!(complaints("if (lane < 3u) { workgroupBarrier(); }", "").contains("non-uniform"));
        let body = "for (var i = lane; i < 9u; i++) { workgroupBarrier(); }";
        assert!(complaints(body, "").contains("non-uniform"));
        let body = "if (lane > 3u) { return; } workgroupBarrier();";
        assert!(complaints(body, "").contains("return before"));
    }

    #[test]
    fn functions_that_wait_are_called_by_all() {
        let waits = "fn wait(lane: u32) { s[lane] = 1.0; workgroupBarrier(); }\nfn outer(lane: u32) { wait(lane); }";
        assert_eq!(complaints("outer(lane);", waits), "");
        assert!(complaints("if (lane < 3u) { outer(lane); }", waits).contains("waits for others"));
        assert!(complaints("if (lane > 3u) { return; } outer(lane);", waits).contains("waits"));
        let inside = "fn wait(lane: u32) { if (lane < 3u) { workgroupBarrier(); } }";
        assert!(complaints("wait(lane);", inside).contains("non-uniform branch"));
    }

    #[test]
    fn limits_are_held() {
        let globals: String = (1..10)
            .map(|i| format!("@group(0) @binding({i}) var<storage, read> b{i}: array<f32>;\n"))
            .collect();
        assert!(complaints("", &globals).contains("9 storage buffers"));
        let big = "var<workgroup> big: array<vec4<f32>, 1024>;";
        assert!(complaints("", big).contains("workgroup memory"));
    }
}
