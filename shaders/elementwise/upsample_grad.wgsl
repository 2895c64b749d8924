// Gradient of nearest-neighbour upsampling: the sum over the copies of each voxel.
//
//   dx[n,c,d,h,w] = sum over i < UD, j < UH, k < UW of dy[n,c,d*UD+i,h*UH+j,w*UW+k]   (added to out with ACC)
//
// Bindings (vec4 = 4 channel lanes): dy [N*CB, D*UD, H*UH, W*UW], out [N*CB, D, H, W]. One thread an output vec4.
// Source: the chain rule of nearest-neighbour upsampling.

struct Params { blocks: u32, d: u32, h: u32, w: u32, dy_base: u32, out_base: u32 }

override ACC: bool = false;
override UD: u32 = 2u;
override UH: u32 = 2u;
override UW: u32 = 2u;
override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let x = t % params.w;
  let y = (t / params.w) % params.h;
  let z = (t / (params.w * params.h)) % params.d;
  let block = t / (params.w * params.h * params.d);
  if (block < params.blocks) {
    var s = vec4<f32>(0.0);
    if (ACC) { s = out[params.out_base + t]; }
    for (var i = 0u; i < UD; i++) {
      for (var j = 0u; j < UH; j++) {
        let start = params.dy_base + ((block * params.d * UD + z * UD + i) * params.h * UH + y * UH + j) * params.w * UW + x * UW;
        for (var k = 0u; k < UW; k++) { s += dy[start + k]; }
      }
    }
    out[params.out_base + t] = s;
  }
}
