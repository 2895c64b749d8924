// Sums of two vectors a lane over a workgroup, in a tree through workgroup memory, or with the section SUBGROUPS by subgroup
// operations within subgroups and then over them.
//
// Asks of the importing file: WG, a power of two. Every lane calls and gets the sums; between two calls there is a barrier.
// Source: two-pass reduction without atomics.
// section SUBGROUPS
// needs subgroups
// end SUBGROUPS

// import sums

var<workgroup> firsts: array<vec4<f32>, WG>;
var<workgroup> seconds: array<vec4<f32>, WG>;

// section SUBGROUPS
// A lane's place: in its workgroup, its subgroup's number of how many, and its place therein of how many.
struct Place { lane: u32, team: u32, teams: u32, member: u32, members: u32 }

fn add_lanes(sums: Sums, place: Place) -> Sums {
  let first = subgroupAdd(sums.first);
  let second = subgroupAdd(sums.second);
  if (place.member == 0u) {
    firsts[place.team] = first;
    seconds[place.team] = second;
  }
  workgroupBarrier();
  // each subgroup adds up those of all
  var own: Sums;
  for (var other = place.member; other < place.teams; other += place.members) {
    own.first += firsts[other];
    own.second += seconds[other];
  }
  return Sums(subgroupAdd(own.first), subgroupAdd(own.second));
}
// otherwise
struct Place { lane: u32 }

fn add_lanes(sums: Sums, place: Place) -> Sums {
  firsts[place.lane] = sums.first;
  seconds[place.lane] = sums.second;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half = half / 2u) {
    if (place.lane < half) {
      firsts[place.lane] += firsts[place.lane + half];
      seconds[place.lane] += seconds[place.lane + half];
    }
    workgroupBarrier();
  }
  return Sums(firsts[0], seconds[0]);
}
// end SUBGROUPS
