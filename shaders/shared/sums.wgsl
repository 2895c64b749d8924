// Two sums that go together.
//
// Asks nothing of the importing file.
// Source: norm_stats.wgsl and norm_grad.wgsl.

struct Sums { first: vec4<f32>, second: vec4<f32> }
