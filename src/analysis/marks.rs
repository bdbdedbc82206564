//! What tells lines apart, with and without colours: dashes, marks, and the key below a picture.
//!
//! Colours are Okabe and Ito's, which colour-blind readers can distinguish too.

use super::curve::{Look, Series};
use plotters::coord::Shift;
use plotters::prelude::*;

pub type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

pub const INK: RGBColor = RGBColor(60, 60, 60);
/// In the units of plotters, of which a pixel has 1.24.
pub const TEXT: u32 = 17;
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(176, 120, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];
/// Pixels that are drawn and left out. With the marks, the first twelve lines differ also in black and white.
const DASHES: [Option<(u32, u32)>; 4] = [None, Some((9, 5)), Some((3, 4)), Some((15, 4))];
const MARKS: usize = 6;
/// Pixels of a row of the key, of the sample of a line, and around it.
const ROW: i32 = 24;
const SAMPLE: i32 = 34;
const GAP: i32 = 8;

/// How a line is drawn.
#[derive(Clone, Copy)]
pub struct Stroke {
    pub colour: RGBColor,
    pub style: ShapeStyle,
    pub dash: Option<(u32, u32)>,
    mark: Option<usize>,
}

impl Stroke {
    pub fn of(line: &Series) -> Self {
        let which = line.colour;
        let colour = COLOURS[which % COLOURS.len()];
        match line.look {
            Look::Thin => Self { colour, style: colour.mix(0.4).stroke_width(1), dash: None, mark: None },
            Look::Line => {
                let (dash, mark) = (DASHES[which % DASHES.len()], Some(which % MARKS));
                Self { colour, style: colour.stroke_width(2), dash, mark }
            }
            Look::Reference => {
                let width = which as u32 % 3;
                Self {
                    colour: INK,
                    style: INK.mix(0.7).stroke_width(1 + width),
                    dash: Some((6 + 4 * width, 4)),
                    mark: None,
                }
            }
        }
    }

    /// Draws the mark of the line around a pixel.
    pub fn mark(&self, canvas: &Canvas, (x, y): (i32, i32)) -> Drawn {
        let Some(mark) = self.mark else { return Ok(()) };
        let filled = self.colour.filled();
        let outline = |offsets: &[(i32, i32)]| offsets.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>();
        match mark {
            0 => canvas.draw(&Circle::new((x, y), 4, filled)),
            1 => canvas.draw(&Polygon::new(outline(&[(0, -6), (5, 4), (-5, 4)]), filled)),
            2 => canvas.draw(&Polygon::new(outline(&[(-4, -4), (4, -4), (4, 4), (-4, 4)]), filled)),
            3 => {
                canvas.draw(&Circle::new((x, y), 4, WHITE.filled()))?;
                canvas.draw(&Circle::new((x, y), 4, self.colour.stroke_width(2)))
            }
            4 => canvas.draw(&Polygon::new(outline(&[(0, -6), (6, 0), (0, 6), (-6, 0)]), filled)),
            _ => {
                let style = self.colour.stroke_width(2);
                canvas.draw(&PathElement::new(outline(&[(-4, -4), (4, 4)]), style))?;
                canvas.draw(&PathElement::new(outline(&[(-4, 4), (4, -4)]), style))
            }
        }
    }

    /// Draws an interval from one pixel to another.
    pub fn whisker(&self, canvas: &Canvas, x: i32, ends: [i32; 2]) -> Drawn {
        let style = self.colour.stroke_width(1);
        canvas.draw(&PathElement::new(vec![(x, ends[0]), (x, ends[1])], style))?;
        ends.iter().try_for_each(|y| canvas.draw(&PathElement::new(vec![(x - 3, *y), (x + 3, *y)], style)))
    }

    /// Draws a piece of the line.
    fn sample(&self, canvas: &Canvas, (x, y): (i32, i32)) -> Drawn {
        let (on, off) = self.dash.map_or((SAMPLE, 1), |(on, off)| (on as i32, off as i32));
        let mut from = x;
        while from < x + SAMPLE {
            let to = (from + on).min(x + SAMPLE);
            canvas.draw(&PathElement::new(vec![(from, y), (to, y)], self.style))?;
            from = to + off;
        }
        self.mark(canvas, (x + SAMPLE / 2, y))
    }
}

/// The names of lines with a sample of each, in columns.
pub struct Key<'a> {
    lines: Vec<&'a Series>,
    columns: usize,
    /// Of a column, in pixels.
    width: i32,
}

impl<'a> Key<'a> {
    /// `width`: of the picture, in pixels.
    pub fn of(lines: Vec<&'a Series>, width: i32) -> Self {
        let widest =
            lines.iter().map(|line| SAMPLE + 4 * GAP + 7 * line.name.chars().count() as i32).max().unwrap_or(1);
        let columns = (width / widest).clamp(1, 4) as usize;
        Self { columns, width: width / columns as i32, lines }
    }

    /// In pixels.
    pub fn height(&self) -> u32 {
        self.lines.len().div_ceil(self.columns) as u32 * ROW as u32
    }

    /// Draws the key below the pixel (x, y).
    pub fn draw(&self, canvas: &Canvas, (x, y): (i32, i32)) -> Drawn {
        for (at, line) in self.lines.iter().enumerate() {
            let (row, column) = ((at / self.columns) as i32, (at % self.columns) as i32);
            let place = (x + column * self.width, y + row * ROW + ROW / 2);
            Stroke::of(line).sample(canvas, place)?;
            let font = ("sans-serif", TEXT).into_font().color(&INK);
            canvas.draw(&Text::new(line.name.clone(), (place.0 + SAMPLE + GAP, place.1 - GAP), font))?;
        }
        Ok(())
    }
}
