//! Where an image comes from that was read from DICOM files: what a segmentation of it says of its source.

use dicom_object::InMemDicomObject;

/// The series of an image, and its slices.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Patient, study and frame of reference, as the first slice has them.
    pub(super) shared: InMemDicomObject,
    /// UID of the series.
    pub(super) series: String,
    /// Direction cosines of rows and of columns.
    pub(super) orientation: [[f64; 3]; 2],
    /// Millimetres between rows and between columns.
    pub(super) spacing: [f64; 2],
    /// Millimetres between slices.
    pub(super) step: f64,
    /// In the order of the slices.
    pub(super) slices: Vec<SourceSlice>,
}

/// A slice of the source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SourceSlice {
    pub class: String,
    pub instance: String,
    /// Of a file of several frames, which one, from 1.
    pub frame: Option<u32>,
    /// Of its first voxel, LPS.
    pub position: [f64; 3],
}
