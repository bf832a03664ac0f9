//! Damaged files: finds the objects without the cross-reference table, and the pages without their
//! tree.
//!
//! lopdf searches for objects too, but gives up where the catalog is lost, as it is in most
//! truncated files. Here the file is searched for `N G obj`; a new table and an empty page tree are
//! written behind it, and lopdf reads that. It repairs no encrypted file, for its key is lost with
//! the trailer, and guesses at no byte: lopdf ends a broken stream where it breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use lopdf::{Dictionary, Document, LoadOptions, Object, ObjectId};

/// Objects numbered beyond this do not occur.
const HIGHEST: u32 = 8_388_607;
/// Page tree nodes within page tree nodes.
const DEEPEST: usize = 64;

/// Reads a file whose cross-reference table cannot be used. `None` where it holds no object, or is
/// encrypted.
pub fn rebuilt(bytes: &[u8], limit: usize) -> Option<Document> {
    let start = bytes.windows(5).take(1024).position(|window| window == b"%PDF-").unwrap_or(0);
    let bytes = bytes.get(start..)?;
    if memchr::memmem::find(bytes, b"/Encrypt").is_some() {
        return None;
    }
    let objects = scan(bytes);
    let last = objects.keys().next_back()?.0;
    let mut file = bytes.to_vec();
    let mut table = String::from("xref\n0 1\n0000000000 65535 f \n");
    for ((number, generation), offset) in &objects {
        let _ = write!(table, "{number} 1\n{offset:010} {generation:05} n \n");
    }
    let (catalog, pages) = (last + 1, last + 2);
    for (number, body) in [
        (catalog, format!("<< /Type /Catalog /Pages {pages} 0 R >>")),
        (pages, "<< /Type /Pages /Kids [] /Count 0 >>".to_owned()),
    ] {
        file.push(b'\n');
        let _ = write!(table, "{number} 1\n{:010} 00000 n \n", file.len());
        file.extend(format!("{number} 0 obj\n{body}\nendobj\n").bytes());
    }
    let size = pages + 1;
    let trailer = format!("trailer\n<< /Size {size} /Root {catalog} 0 R >>\n");
    let end = format!("{table}{trailer}startxref\n{}\n%%EOF\n", file.len());
    file.extend(end.bytes());
    let options = LoadOptions { max_decompressed_size: Some(limit), ..LoadOptions::default() };
    Document::load_mem_with_options(&file, options).ok()
}

/// Where each `N G obj` stands. Of two with one number the later is the newer.
fn scan(bytes: &[u8]) -> BTreeMap<(u32, u16), usize> {
    let mut out = BTreeMap::new();
    let mut newest: BTreeMap<u32, u16> = BTreeMap::new();
    let number = |end: usize| {
        let digits = bytes[..end].iter().rev().take(10).take_while(|b| b.is_ascii_digit()).count();
        let text = std::str::from_utf8(&bytes[end - digits..end]).ok()?;
        Some((text.parse::<u32>().ok()?, end - digits))
    };
    let blank = |end: usize| {
        let blanks = bytes[..end].iter().rev().take(8).take_while(|b| b.is_ascii_whitespace());
        end - blanks.count()
    };
    for at in memchr::memmem::find_iter(bytes, b"obj") {
        let header = (|| {
            let (generation, from) = number(blank(at))?;
            let to = blank(from);
            let (id, offset) = (to < from).then(|| number(to)).flatten()?;
            Some(((id, u16::try_from(generation).ok()?), offset))
        })();
        if let Some(((id, generation), offset)) = header.filter(|((id, _), _)| *id <= HIGHEST) {
            if let Some(old) = newest.insert(id, generation) {
                out.remove(&(id, old));
            }
            out.insert((id, generation), offset);
        }
    }
    out
}

/// The pages of a damaged file: those in what is left of page trees, in their order, then those
/// that no tree leads to, in the order of their numbers.
pub fn pages(document: &Document) -> Vec<ObjectId> {
    let typed = |name: &'static [u8]| {
        let of_type = move |(id, object): (&ObjectId, &Object)| {
            let dict = object.as_dict().ok()?;
            dict.has_type(name).then_some((*id, dict.clone()))
        };
        document.objects.iter().filter_map(of_type)
    };
    let nodes: BTreeMap<ObjectId, Dictionary> = typed(b"Pages").collect();
    let leaves: BTreeSet<ObjectId> = typed(b"Page").map(|(id, _)| id).collect();
    let below: BTreeSet<ObjectId> = nodes.values().flat_map(|node| kids(document, node)).collect();
    let (mut out, mut seen) = (Vec::new(), BTreeSet::new());
    for root in nodes.keys().filter(|id| !below.contains(id)) {
        walk(document, *root, (&nodes, &leaves), &mut seen, &mut out, DEEPEST);
    }
    out.extend(leaves.iter().filter(|id| !seen.contains(id)));
    out
}

fn kids(document: &Document, node: &Dictionary) -> Vec<ObjectId> {
    let kids = node.get_deref(b"Kids", document).and_then(Object::as_array);
    kids.into_iter().flatten().filter_map(|kid| kid.as_reference().ok()).collect()
}

fn walk(
    document: &Document,
    id: ObjectId,
    tree: (&BTreeMap<ObjectId, Dictionary>, &BTreeSet<ObjectId>),
    seen: &mut BTreeSet<ObjectId>,
    out: &mut Vec<ObjectId>,
    deep: usize,
) {
    if deep == 0 || !seen.insert(id) {
        return;
    }
    if tree.1.contains(&id) {
        out.push(id);
    }
    for kid in tree.0.get(&id).map(|node| kids(document, node)).unwrap_or_default() {
        walk(document, kid, tree, seen, out, deep - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_and_the_later_one_counts() {
        let found =
            scan(b"x 1 0 obj<<>>endobj\n12 0  obj endobj 1 0 obj 7 endobj a3 0 obj obj 0 obj");
        let want = [((1, 0), 37), ((3, 0), 55), ((12, 0), 20)];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), want);
    }
}
