//! Small files that have each killed some PDF reader: bombs, cycles, nesting, locks.
//!
//! They are written by hand, byte by byte where need be, for a writer of sound files would refuse.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, ZlibEncoder};

/// A file and what must become of it.
pub struct Case {
    /// What it is.
    pub name: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
    /// Its text must hold this; else it must be refused, with a reason that holds it.
    pub want: Want,
}

/// What must become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Text with these words.
    Text(&'static str),
    /// A refusal whose message has these words.
    Reason(&'static str),
    /// The one or the other.
    Either,
}

/// A PDF of these objects, numbered from 1; the first is the catalog.
fn file(objects: &[Vec<u8>]) -> Vec<u8> {
    file_with(objects, "")
}

fn file_with(objects: &[Vec<u8>], trailer: &str) -> Vec<u8> {
    let mut out = b"%PDF-1.5\n".to_vec();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (at, object) in objects.iter().enumerate() {
        let _ = writeln!(table, "{:010} 00000 n ", out.len());
        out.extend(format!("{} 0 obj\n", at + 1).bytes());
        out.extend(object);
        out.extend(b"\nendobj\n");
    }
    let start = out.len();
    out.extend(table.bytes());
    let size = objects.len() + 1;
    out.extend(
        format!("trailer\n<< /Size {size} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n")
            .bytes(),
    );
    out
}

fn stream(entries: &str, data: &[u8]) -> Vec<u8> {
    let mut out = format!("<< /Length {} {entries} >>\nstream\n", data.len()).into_bytes();
    out.extend(data);
    out.extend(b"\nendstream");
    out
}

/// `head`, then `unit` so many times, then `tail`, compressed; it is never in memory as a whole.
fn zipped(head: &[u8], unit: &[u8], times: usize, tail: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let parts = std::iter::once(head).chain(std::iter::repeat_n(unit, times)).chain([tail]);
    let written: std::io::Result<()> =
        parts.into_iter().try_for_each(|part| encoder.write_all(part));
    written.and_then(|()| encoder.finish()).unwrap_or_default()
}

/// A zlib stream of `unit`, over and over: `times` copies of one block that stands by itself.
fn bomb(unit: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(unit).and_then(|()| encoder.flush());
    let block = written.map(|()| encoder.get_ref().clone()).unwrap_or_default();
    let mut out = vec![0x78, 0xda];
    (0..times).for_each(|_| out.extend(&block));
    out.extend([3, 0, 0, 0, 0, 0]);
    out
}

const FONT: &[u8] = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>";
const SHOWN: &[u8] = b"BT /F 10 Tf 50 700 Td (honest words) Tj ET ";

/// A page with this content stream, resources (beside the font, object 4) and further objects from 6.
fn page(content: Vec<u8>, resources: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let mut objects = vec![
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_vec(),
        format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 5 0 R \
             /Resources << /Font << /F 4 0 R /G 6 0 R >> {resources} >> >>"
        )
        .into_bytes(),
        FONT.to_vec(),
        content,
    ];
    objects.extend_from_slice(more);
    file(&objects)
}

/// A font of two-byte codes with this ToUnicode map (object 7).
fn mapped(map: Vec<u8>) -> [Vec<u8>; 2] {
    let font =
        b"<< /Type /Font /Subtype /Type0 /BaseFont /M /Encoding /Identity-H /ToUnicode 7 0 R \
                 /DescendantFonts [<< /Type /Font /Subtype /CIDFontType2 /BaseFont /M >>] >>";
    [font.to_vec(), map]
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let case = |name, want, bytes| Case { name, bytes, want };
    let words = Want::Text("honest words");
    let zeroes = vec![0u8; 1 << 20];
    let flate = "/Filter /FlateDecode";
    let coded = [SHOWN, b"BT /G 10 Tf 50 600 Td <00410042> Tj ET"].concat();
    let form = |content: &str| {
        let own = "/Type /XObject /Subtype /Form /BBox [0 0 600 800] \
                   /Resources << /XObject << /A 6 0 R /B 7 0 R /C 8 0 R >> >>";
        stream(own, content.as_bytes())
    };
    let forms = "/XObject << /A 6 0 R /B 7 0 R /C 8 0 R >>";
    let draws = [SHOWN, b"/A Do"].concat();
    let doubling: Vec<Vec<u8>> = (0..60)
        .map(|at| {
            let own = format!(
                "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /N {} 0 R >> >>",
                at + 7
            );
            stream(&own, &b"/N Do ".repeat(10))
        })
        .collect();
    let cycle = file(&[
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [2 0 R 3 0 R 3 0 R] /Count 900000000 /Parent 3 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Parent 2 0 R /Count -5 >>".to_vec(),
    ]);
    let tall: Vec<Vec<u8>> =
        std::iter::once(b"<< /Type /Catalog /Pages 2 0 R >>".to_vec())
            .chain((2..50_000).map(|at| {
                format!("<< /Type /Pages /Kids [{} 0 R] /Count 1 >>", at + 1).into_bytes()
            }))
            .collect();
    let brackets = |n: usize| [b"[".repeat(n), b"]".repeat(n)].concat();
    let nested_in_file = file(&[
        b"<< /Type /Catalog /Pages 2 0 R /X 3 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [] /Count 0 >>".to_vec(),
        brackets(200_000),
        [b"<</A".repeat(200_000), b">>".repeat(200_000)].concat(),
    ]);
    let wide = b"1 begincodespacerange <0000> <ffff> endcodespacerange \
                 1 beginbfrange <0000> <ffffffff> <0041> endbfrange";
    let many = b"100 beginbfrange <0000> <ffff> <0041004100410041> endbfrange ".repeat(200_000);
    let objects = b"<< /Type /ObjStm /N 99999999 /First 10 /Length 0 >>";
    let object_bomb = {
        let mut all = vec![
            b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
            b"<< /Type /Pages /Kids [] /Count 0 >>".to_vec(),
            objects.to_vec(),
        ];
        let entries = format!("/Type /ObjStm /N 9000000 /First 2000000000 {flate}");
        all.extend((0..4).map(|_| stream(&entries, &bomb(&b"1 0 ".repeat(1 << 18), 2048))));
        file(&all)
    };
    let image = stream(
        "/Type /XObject /Subtype /Image /Width 1 /Height 1 /BitsPerComponent 8 /ColorSpace /DeviceGray",
        b"\x7f",
    );
    let locked = file_with(
        &[
            b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
            b"<< /Type /Pages /Kids [] /Count 0 >>".to_vec(),
            [
                b"<< /Filter /Standard /V 2 /R 3 /Length 128 /P -4 /O <".as_slice(),
                &b"5a".repeat(32),
                b"> /U <",
                &b"00".repeat(32),
                b"> >>",
            ]
            .concat(),
        ],
        "/Encrypt 3 0 R /ID [<00> <00>]",
    );
    vec![
        case(
            "Flate bomb as content, 2 GiB",
            Want::Reason("no text"),
            page(stream(flate, &bomb(&zeroes, 2048)), "", &[]),
        ),
        case(
            "Flate bomb as ToUnicode, 2 GiB",
            words,
            page(stream("", &coded), "", &mapped(stream(flate, &bomb(&zeroes, 2048)))),
        ),
        case("Flate bombs as object streams", Want::Either, object_bomb),
        case(
            "Flate within Flate",
            Want::Reason("no text"),
            page(
                stream(
                    "/Filter [/FlateDecode /FlateDecode]",
                    &zipped(&bomb(&zeroes, 2048), b"", 0, b""),
                ),
                "",
                &[],
            ),
        ),
        case(
            "operator bomb, 60 MiB",
            words,
            page(stream(flate, &zipped(SHOWN, &b"q ".repeat(512), 60 << 10, b"")), "", &[]),
        ),
        case(
            "glyph bomb, 60 MiB",
            words,
            page(
                stream(
                    flate,
                    &zipped(
                        &[SHOWN, b"BT /F 9 Tf 50 600 Td ("].concat(),
                        &b"x".repeat(1024),
                        60 << 10,
                        b") Tj ET",
                    ),
                ),
                "",
                &[],
            ),
        ),
        case(
            "operand bomb, 60 MiB",
            words,
            page(stream(flate, &zipped(SHOWN, &b"1 ".repeat(512), 60 << 10, b"")), "", &[]),
        ),
        case(
            "a form that draws itself",
            words,
            page(stream("", &draws), forms, &[form("/A Do"), form(""), form("")]),
        ),
        case(
            "forms that draw each other",
            words,
            page(
                stream("", &draws),
                forms,
                &[form("/B Do /B Do"), form("/C Do /C Do"), form("/A Do /A Do")],
            ),
        ),
        case(
            "forms that multiply by ten at each level",
            words,
            page(stream("", &draws), "/XObject << /A 6 0 R >>", &doubling),
        ),
        case("a cyclic page tree", Want::Reason("no pages"), cycle),
        case("a page tree 50,000 deep", Want::Either, file(&tall)),
        case(
            "a bfrange over four billion codes",
            words,
            page(stream("", &coded), "", &mapped(stream("", wide))),
        ),
        case(
            "two hundred thousand bfranges",
            words,
            page(stream("", &coded), "", &mapped(stream("", &many))),
        ),
        case("200,000 nested arrays in the file", Want::Either, nested_in_file),
        case(
            "200,000 nested arrays in the content",
            words,
            page(stream("", &[SHOWN, &brackets(200_000)].concat()), "", &[]),
        ),
        case(
            "an image and no text",
            Want::Reason("OCR"),
            page(stream("", b"/I Do"), "/XObject << /I 6 0 R >>", &[image]),
        ),
        case("encrypted, the password unknown", Want::Reason("encrypted"), locked),
        case(
            "no page",
            Want::Reason("no pages"),
            file(&[
                b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
                b"<< /Type /Pages /Kids [] /Count 0 >>".to_vec(),
            ]),
        ),
        case("nothing after the head", Want::Reason("the PDF"), b"%PDF-1.7\n".to_vec()),
        case("an empty file", Want::Reason("not a PDF"), Vec::new()),
    ]
}
