//! `report.html`: one page that tells all of a training run or of a folder of predictions and needs nothing but itself. Here is
//! what it shows and how; who has a run's files fills it in.

mod confidence;
mod measures;
mod origin;
mod page;
mod picture;
mod plots;
mod predictions;
mod scores;
mod table;
mod words;

pub use origin::{Device, Origin, bytes};
pub use page::{
    ConfidencePart, CurvePart, DomainPart, Figure, Page, Pair, Plot, RunPart, TextFile, made,
};
pub use picture::data_uri;
pub use plots::{Line, curves, strips};
pub use predictions::{PREDICTION, PredictionRecord, predictions};
pub use scores::domain;
pub use table::{Cell, Column, Row, Table, grouped};
pub use words::{axes, duration, mm};
