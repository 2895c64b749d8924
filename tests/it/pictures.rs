//! Pictures and pages that need no adapter: `u2seg view`, and `u2seg report` of masks.

use std::path::Path;

use crate::common::program::*;
use crate::common::volumes::{volume, write_image, write_mask};
use u2seg::low_level::imaging::Grid;

/// An image of two boxes in a folder with its mask, and a description that names them.
fn case(folder: &Path) -> [String; 2] {
    let shape = [12, 20, 16];
    let grid = Grid::ras(shape, [3.0, 1.0, 1.0]);
    let at = |i: usize| (i / 320, i / 16 % 20, i % 16);
    let labels: Vec<u8> = (0..12 * 320)
        .map(|i| match at(i) {
            (1..5, 4..10, 3..9) => 1,
            (7..10, 12..16, 10..13) => 2,
            _ => 0,
        })
        .collect();
    let image: Vec<f32> = labels.iter().map(|label| 50.0 + 60.0 * f32::from(*label)).collect();
    let [image_file, mask_file] = ["image.nii.gz", "mask.nii.gz"].map(|name| folder.join(name));
    write_image(&image_file, volume(1, image, &grid).as_slice(), &grid).unwrap();
    write_mask(&mask_file, &labels, &grid).unwrap();
    let json = r#"{"labels":{"0":"background","1":"<i>liver","2":"tumour"},"modality":{"0":"CT"}}"#;
    std::fs::write(folder.join("dataset.json"), json).unwrap();
    [image_file, mask_file].map(|file| path(&file).to_string())
}

fn size(file: &Path) -> (u32, u32) {
    image::image_dimensions(file).unwrap()
}

#[test]
fn an_image_is_drawn_alone_with_masks_and_as_a_sheet() {
    let folder = tempfile::tempdir().unwrap();
    let [image, mask] = case(folder.path());
    let out = |name: &str| folder.path().join(name);
    let draw = |name: &str, more: &[&str]| {
        let file = out(name);
        let stdout = succeed(&[&["view", &image], more, &["-o", path(&file)]].concat());
        assert_eq!(stdout.trim(), path(&file));
        image::open(&file).unwrap().to_rgb8()
    };
    let alone = draw("alone.png", &[]);
    let one = draw("one.png", &[&mask]);
    let both = draw("both.png", &[&mask, "--reference", &mask]);
    let plain = draw("plain.png", &[&mask, "--labels", "none"]);
    let coloured = |picture: &image::RgbImage| {
        let spread =
            |p: &image::Rgb<u8>| p.0.iter().max().zip(p.0.iter().min()).map(|(a, b)| a - b);
        picture.pixels().filter(|pixel| spread(pixel) > Some(60)).count()
    };
    assert_eq!(coloured(&alone), 0);
    assert!(coloured(&one) > 1000 && coloured(&both) > 1000);
    assert_ne!(one, both);
    // names stand in the legend, and values in their place
    assert_ne!(one, plain);
    let sheet = draw("sheet.png", &[&mask, "--slices", "4", "--plane", "coronal"]);
    assert_ne!(sheet.dimensions(), one.dimensions());
    assert_eq!(size(&out("one.png")), one.dimensions());
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [image, mask] = case(folder.path());
    let png = folder.path().join("x.png");
    for (more, told) in [
        (vec!["-o", "x.jpg"], ".png"),
        (vec!["--slices", "0"], "--slices"),
        (vec!["--slices", "100000"], "--slices"),
        (vec!["--channel", "1"], "--channel"),
        (vec!["--window", "5,-5"], "--window"),
        (vec!["no-such-mask.nii.gz"], "no-such-mask.nii.gz"),
        (vec![mask.as_str(), "--labels", "no-such.json"], "no-such.json"),
    ] {
        let out: &[&str] = if more.contains(&"-o") { &[] } else { &["-o", path(&png)] };
        let error = fail(&[&["view", &image], &more[..], out].concat());
        assert!(error.contains(told), "{more:?}: {error}");
    }
    let error = fail(&["view", &image, "-o", &image]);
    assert!(error.contains(".png"), "{error}");
    assert!(!png.exists());
}

#[test]
fn a_folder_of_masks_has_a_page_and_its_names_are_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let [_, mask] = case(folder.path());
    let masks = folder.path().join("masks");
    std::fs::create_dir(&masks).unwrap();
    for name in ["<script>alert(1)<script>", "b & c"] {
        std::fs::copy(&mask, masks.join(format!("{name}.nii.gz"))).unwrap();
    }
    let page = folder.path().join("page.html");
    succeed(&["report", path(&masks), "-o", path(&page)]);
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(!text.contains("<script>alert"), "an unescaped name");
    assert!(text.contains("b &#38; c") || text.contains("b &amp; c"));
    // 4 × 6 × 6 and 3 × 4 × 3 voxels of 3 mm³
    assert!(text.contains(">0.43<") && text.contains(">0.11<") && text.contains(">0.54<"));
    assert!(text.contains("u2seg predict --preview") && text.contains("u2seg evaluate"));
    for address in ["http://", "https://"] {
        let outside = text.matches(address).count();
        // what names the language of the plots
        assert_eq!(
            outside,
            text.matches("http://www.w3.org/2000/svg").count() * usize::from(address == "http://")
        );
    }
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(fail(&["report", path(&empty)]).contains("neither a run nor a mask"));
    assert!(fail(&["report", path(&page)]).contains("found a file"));
    assert!(fail(&["report", path(&masks), "-o", "x.png"]).contains(".html"));
}
