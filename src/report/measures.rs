//! What `predict --statistics` measured of masks, on a page.

use super::page::DomainPart;
use super::table::{Cell, Row, Table};
use crate::score::{CaseStatistics, Intensity};

/// A row a class of a case; none where nothing was measured.
pub(super) fn measures<'a>(
    cases: impl Iterator<Item = &'a CaseStatistics> + Clone,
) -> Option<DomainPart> {
    let classes = cases.clone().flat_map(|case| &case.classes);
    let channels = classes.map(|class| class.intensity.len()).max()?;
    let mut columns: Vec<String> =
        ["Case", "Class", "Volume, ml", "Voxels", "Connected parts"].map(String::from).into();
    for channel in 0..channels {
        let of = if channels > 1 { format!(", channel {channel}") } else { String::new() };
        columns.extend([format!("Mean intensity{of}"), format!("Standard deviation{of}")]);
    }
    let width = columns.len();
    let mut table = Table::new(columns);
    table.columns[1].number = false;
    let number = |value: Option<f64>| Cell::number(value.unwrap_or(f64::NAN), 2);
    for case in cases {
        for class in &case.classes {
            let mut cells = vec![
                Cell::text(&case.case),
                Cell::text(&class.class),
                Cell::number(class.volume_ml, 3),
                Cell::count(class.voxels),
                Cell::count(class.components as u64),
            ];
            let told = |Intensity { mean, std }: &Intensity| [number(*mean), number(*std)];
            cells.extend(class.intensity.iter().flat_map(told));
            cells.resize(width, Cell::default());
            table.rows.push(Row { link: String::new(), cells });
        }
    }
    Some(DomainPart {
        name: "Measures of each class".into(),
        cases: table,
        order: "by name".into(),
        ..DomainPart::default()
    })
}
