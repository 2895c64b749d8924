//! The rooms of the house as they are, for tests, measurements and experiments. Nothing here is stable.

pub use crate::base::{canvas, files};
pub use crate::engine::{
    activation, check, exec, gpu, graph, ops, oracle, plan, shader, shape, tune,
};

macro_rules! rooms {
    ($($room:ident),*) => {
        $(
        #[doc = concat!("The room `", stringify!($room), "`.")]
        pub mod $room {
            #[doc(inline)]
            pub use crate::$room::*;
        })*
    };
}

rooms!(
    bench, dataset, domain, fetch, imaging, models, net, patch, picture, report, run, score,
    segment, train
);
