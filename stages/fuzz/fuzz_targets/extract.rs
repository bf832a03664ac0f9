//! Any bytes through `extract`. The first byte picks the kind of file: PDF as such, a content stream or
//! a CMap in a sound PDF around it (which the fuzzer would hardly build by itself), or another format.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use quantmill_stages::{ALL, Cancel, Context, Input, Job, Progress, Sink};

struct Silent;

impl Sink for Silent {
    fn progress(&self, _: Progress) {}
    fn metric(&self, _: &str, _: f64) {}
    fn warn(&self, _: &str) {}
    fn output(&self, _: &str) {}
}

/// A PDF of one page with this content, and fonts with this ToUnicode map, encoding and program.
fn pdf(content: &[u8], part: &[u8]) -> Vec<u8> {
    let stream = |data: &[u8]| {
        let mut out = format!("<< /Length {} >>\nstream\n", data.len()).into_bytes();
        out.extend(data);
        out.extend(b"\nendstream");
        out
    };
    let objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_vec(),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R /Resources << /Font \
          << /F 5 0 R /G 6 0 R /H 8 0 R /T 9 0 R >> /XObject << /X 10 0 R >> >> >>"
            .to_vec(),
        stream(content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /CMMI10 /FontDescriptor 7 0 R /ToUnicode 11 0 R >>"
            .to_vec(),
        b"<< /Type /Font /Subtype /Type0 /BaseFont /M /Encoding 11 0 R /ToUnicode 11 0 R \
          /DescendantFonts [<< /Type /Font /Subtype /CIDFontType2 /FontDescriptor 12 0 R >>] >>"
            .to_vec(),
        b"<< /Type /FontDescriptor /Flags 4 /FontFile 11 0 R >>".to_vec(),
        b"<< /Type /Font /Subtype /TrueType /BaseFont /T /FontDescriptor 12 0 R >>".to_vec(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /C /FontDescriptor << /FontFile3 11 0 R >> >>".to_vec(),
        [
            b"<< /Type /XObject /Subtype /Form /BBox [0 0 600 800] /Length 5 >>\nstream\n".as_slice(),
            b"/X Do\nendstream",
        ]
        .concat(),
        stream(part),
        b"<< /Type /FontDescriptor /Flags 4 /FontFile2 11 0 R >>".to_vec(),
    ];
    let mut out = b"%PDF-1.5\n".to_vec();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (at, object) in objects.iter().enumerate() {
        table += &format!("{:010} 00000 n \n", out.len());
        out.extend(format!("{} 0 obj\n", at + 1).bytes());
        out.extend(object);
        out.extend(b"\nendobj\n");
    }
    let start = out.len();
    out.extend(table.bytes());
    let size = objects.len() + 1;
    out.extend(format!("trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n").bytes());
    out
}

const SHOWN: &[u8] = b"BT /F 10 Tf 50 700 Td [(ab\\013)-300(c)] TJ /G 10 Tf 0 -12 Td <004100420043> Tj \
                       /H 10 Tf 0 -12 Td (\\001ABC) Tj /T 10 Tf 0 -12 Td (\\001ABC) Tj ET";

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let (name, bytes) = match kind % 8 {
        0..=2 => ("a.pdf", data.to_vec()),
        3 => ("a.pdf", pdf(data, b"")),
        4 => ("a.pdf", pdf(SHOWN, data)),
        5 => ("a.html", data.to_vec()),
        6 => ("a.tex", data.to_vec()),
        _ => ("a.ipynb", data.to_vec()),
    };
    let Some(kind) = ALL.iter().find(|kind| kind.name == "extract") else { return };
    let Ok(folder) = tempfile::tempdir() else { return };
    let (file, text) = (folder.path().join(name), folder.path().join("text"));
    if std::fs::write(&file, bytes).is_err() || std::fs::create_dir(&text).is_err() {
        return;
    }
    let input = Input { files: [(name.to_owned(), file)].into_iter().collect(), tree: false };
    let job = Job {
        kind: kind.name.into(),
        params: serde_json::json!({ "headers": "remove", "hyphens": "join" }),
        inputs: BTreeMap::from([("documents".to_owned(), input)]),
        outputs: BTreeMap::from([("text".to_owned(), text.clone())]),
        ..Job::default()
    };
    if (kind.run)(&job.params, &Context::new(&job, &Silent, Cancel::default())).is_ok() {
        let stem = text.join("a.txt");
        let found = std::fs::read_to_string(stem).expect("what was read is text");
        let json = std::fs::read(text.join("a.json")).expect("and has a sidecar");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("which is JSON");
        assert_eq!(json["characters"], found.chars().count(), "offsets are of this text");
        let characters = found.chars().count() as u64;
        for list in ["pages", "sections"] {
            for entry in json[list].as_array().expect("a list") {
                assert!(entry["offset"].as_u64().is_some_and(|at| at <= characters), "{entry}");
            }
        }
    }
});
