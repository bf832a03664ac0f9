//! Models of the Hugging Face hub, from its cache and from a hub that the test plays.

use std::path::Path;

use crate::space::{Ended, Space};

const FILES: [(&str, &str); 3] =
    [("config.json", "{}"), ("tokenizer.json", "[]"), ("model.safetensors", "weights")];

fn pipeline(source: &str) -> String {
    format!(
        "version: 1\ninputs: {{ m: {source} }}\nstages:\n  a: {{ uses: command, from: {{ m: m }}, with: {{ run: 'ls {{in.m}} > {{out.y}}', outputs: {{ y: out/a }} }} }}\n"
    )
}

fn run(space: &Space, hub: &Path, more: &[(&str, &str)]) -> Ended {
    let mut command = space.command(&["run"]);
    command.env("HF_HUB_CACHE", hub).env_remove("HF_HUB_OFFLINE").env_remove("HF_TOKEN");
    Ended::of(command.envs(more.iter().copied()).output().unwrap())
}

/// Puts files where the hub's programs keep those of a revision.
fn keep(hub: &Path, commit: &str, files: &[(&str, &str)]) {
    let repo = hub.join("models--desk--tiny");
    let snapshot = repo.join("snapshots").join(commit);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), commit).unwrap();
    for (name, text) in files {
        std::fs::write(snapshot.join(name), text).unwrap();
    }
}

#[test]
fn what_the_cache_holds_is_a_source_like_any_other() {
    let (space, hub) = (Space::new(&pipeline("{ hf: desk/tiny }")), tempfile::tempdir().unwrap());
    keep(hub.path(), "c1", &FILES);
    keep(hub.path(), "c1", &[("pytorch_model.bin", "a pickle"), ("README.md", "words")]);
    let ended = run(&space, hub.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(space.read("out/a"), "config.json\nmodel.safetensors\ntokenizer.json\n");
    let ended = run(&space, hub.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert!(ended.ran(&[]), "{ended:?}");
    // Another revision with other weights is a change like any other; with the same, none.
    keep(hub.path(), "c2", &FILES);
    assert!(run(&space, hub.path(), &[("HF_HUB_OFFLINE", "1")]).ran(&[]));
    keep(hub.path(), "c3", &FILES);
    keep(hub.path(), "c3", &[("model.safetensors", "other weights")]);
    let ended = run(&space, hub.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert!(ended.ran(&["a"]), "{ended:?}");
}

#[test]
fn a_model_that_is_nowhere_is_an_error_that_says_where_it_may_be() {
    let (space, hub) = (Space::new(&pipeline("hf://desk/tiny@v1")), tempfile::tempdir().unwrap());
    keep(hub.path(), "v1", &FILES[..2]);
    let ended = run(&space, hub.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("desk/tiny (v1) cannot be had from the hub"), "{ended:?}");
    assert!(ended.err.contains("HF_HUB_CACHE"), "{ended:?}");
}

#[test]
fn what_names_no_model_is_a_mistake_of_the_file() {
    for (source, said) in [
        ("{ hf: tiny }", "names no model of the hub"),
        ("{ hf: ../../etc/passwd }", "names no model of the hub"),
        ("{ hf: desk/.. }", "names no model of the hub"),
        ("{ hf: desk/tiny, revison: v1 }", "did you mean `revision`"),
        ("{ revision: v1 }", "no `hf` in an input that is a map"),
    ] {
        let ended = Space::new(&pipeline(source)).quantmill(&["check"]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.err.contains(said), "{source}: {ended:?}");
    }
}

#[cfg(feature = "lm")]
mod served {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A hub with one model, and what it was asked for with which token.
    fn serve() -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let lines: Vec<String> =
                    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let path = lines[0].split(' ').nth(1).unwrap().to_owned();
                let token = lines.iter().find(|l| l.to_lowercase().starts_with("authorization"));
                heard.lock().unwrap().push(format!("{path} {}", token.map_or("", |t| t)));
                let range = lines.iter().find(|line| line.to_lowercase().starts_with("range"));
                let (status, head, body) = answer(&path, range.is_some_and(|r| r.ends_with("0-0")));
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
        });
        (address, asked)
    }

    fn answer(path: &str, first: bool) -> (&'static str, String, String) {
        if path == "/api/models/desk/tiny/revision/main" {
            let files = FILES.map(|(name, _)| format!(r#"{{"rfilename":"{name}"}}"#)).join(",");
            let more = r#"{"rfilename":"pytorch_model.bin"}"#;
            let body = format!(r#"{{"sha":"c0ffee","siblings":[{files},{more}]}}"#);
            return ("200 OK", "Content-Type: application/json\r\n".into(), body);
        }
        let file = FILES.iter().find(|(name, _)| path == format!("/desk/tiny/resolve/main/{name}"));
        let Some((name, text)) = file else {
            return ("404 Not Found", String::new(), String::new());
        };
        let (last, len) = (if first { 0 } else { text.len() - 1 }, text.len());
        let head = format!(
            "ETag: \"of-{name}\"\r\nx-repo-commit: c0ffee\r\nContent-Range: bytes 0-{last}/{len}\r\n"
        );
        ("206 Partial Content", head, text[..=last].into())
    }

    #[test]
    fn what_the_cache_lacks_is_fetched_once_and_never_a_pickle() {
        let (address, asked) = serve();
        let (space, hub) =
            (Space::new(&pipeline("{ hf: desk/tiny }")), tempfile::tempdir().unwrap());
        let env = [("HF_ENDPOINT", &*address), ("HF_TOKEN", "secret")];
        let ended = run(&space, hub.path(), &env);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(space.read("out/a"), "config.json\nmodel.safetensors\ntokenizer.json\n");
        let first = asked.lock().unwrap().clone();
        assert!(first.iter().all(|line| line.ends_with("Bearer secret")), "{first:?}");
        assert!(!first.iter().any(|line| line.contains("pytorch_model")), "{first:?}");
        assert!(!ended.err.contains("secret"), "{ended:?}");
        let ended = run(&space, hub.path(), &env);
        assert!(ended.ran(&[]), "{ended:?}");
        assert_eq!(asked.lock().unwrap().len(), first.len());
    }
}
