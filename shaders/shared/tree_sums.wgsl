// Sums of two vectors a lane over a workgroup, in a tree through workgroup memory, or with the section SUBGROUPS by subgroup
// operations within subgroups and one after another through workgroup memory.
//
// Asks of the importing file: WG, a power of two. Every lane calls; between two calls there is a barrier.
// Source: two-pass reduction without atomics.
// section SUBGROUPS
// needs subgroups
// end SUBGROUPS

// import sums

var<workgroup> firsts: array<vec4<f32>, WG>;
var<workgroup> seconds: array<vec4<f32>, WG>;

// section SUBGROUPS
// A lane's place: in its workgroup, its subgroup's number of how many, and its place therein.
struct Place { lane: u32, team: u32, teams: u32, member: u32 }

// The sums are whole in lane 0 alone.
fn add_lanes(sums: Sums, place: Place) -> Sums {
  let first = subgroupAdd(sums.first);
  let second = subgroupAdd(sums.second);
  if (place.member == 0u) {
    firsts[place.team] = first;
    seconds[place.team] = second;
  }
  workgroupBarrier();
  var totals: Sums;
  if (place.lane == 0u) {
    for (var other = 0u; other < place.teams; other++) { totals.first += firsts[other]; totals.second += seconds[other]; }
  }
  return totals;
}
// otherwise
fn add_lanes(sums: Sums, lane: u32) -> Sums {
  firsts[lane] = sums.first;
  seconds[lane] = sums.second;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half = half / 2u) {
    if (lane < half) {
      firsts[lane] += firsts[lane + half];
      seconds[lane] += seconds[lane + half];
    }
    workgroupBarrier();
  }
  return Sums(firsts[0], seconds[0]);
}
// end SUBGROUPS
