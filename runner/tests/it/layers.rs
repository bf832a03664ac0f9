//! The arrows between crates: runner -> stages -> cache, and no other.

use std::process::Command;

#[test]
fn crates_depend_in_one_direction() {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let mut arrows = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            if name.starts_with("quantmill") {
                arrows.push(format!("{} -> {name}", package["name"].as_str().unwrap()));
            }
        }
    }
    arrows.sort_unstable();
    assert_eq!(
        arrows,
        [
            "quantmill -> quantmill-cache",
            "quantmill -> quantmill-stages",
            "quantmill-stages -> quantmill-cache",
        ]
    );
}
