//! A picture as PNG: the SVG, drawn by resvg with a font that is part of the program (Noto Sans, SIL Open Font
//! License), so that it needs nothing installed and looks the same everywhere.

use anyhow::{Context, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// Pixels for each unit of the SVG.
const SCALE: f32 = 2.0;
const FAMILY: &str = "Noto Sans";

/// The bytes of a PNG file.
///
/// # Errors
/// Text that is not SVG, or has no size.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let mut options = Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(notosans::REGULAR_TTF.to_vec());
    fonts.set_sans_serif_family(FAMILY);
    let tree = Tree::from_str(svg, &options).context("the picture cannot be read")?;
    let size = tree.size().to_int_size().scale_by(SCALE).context("the picture has no size")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).context("the picture has no size")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().context("the picture cannot be encoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_lines_leave_ink() {
        let picture = |inner: &str| {
            let head = r#"<svg width="60" height="30" xmlns="http://www.w3.org/2000/svg">"#;
            let bytes = png(&format!("{head}{inner}</svg>")).unwrap();
            Pixmap::decode_png(&bytes).unwrap()
        };
        let ink = |inner: &str| picture(inner).pixels().iter().filter(|pixel| pixel.alpha() > 0).count();
        assert_eq!((picture("").width(), picture("").height(), ink("")), (120, 60, 0));
        assert_eq!(ink(r#"<rect width="10" height="10"/>"#), 400);
        let text = ink(r#"<text x="2" y="20" font-family="sans-serif" font-size="14">step −5 %</text>"#);
        assert!(text > 300, "{text}");
        assert!(png("no picture").is_err());
    }
}
