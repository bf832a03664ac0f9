//! The real PEFT, opt-in: `QUANTMILL_TEST_PEFT` names a Python that has it. It loads what is written here,
//! and what it writes is loaded here.

use std::path::Path;
use std::process::Command;

use burn::tensor::{Distribution, Tensor};
use serde_json::Value;

use super::super::load::adapt;
use super::*;
use crate::device::{Back, cpu};
use crate::model::weights::{Folder, Tensors};
use crate::model::{Config, Llama};

/// Logits of the base with the adapter in a folder, and the adapter written again into another.
const PEER: &str = "
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model = PeftModel.from_pretrained(model, adapter).eval()
with torch.no_grad():
    logits = model(torch.tensor([[5, 17, 33, 2]])).logits
model.save_pretrained(out)
print(json.dumps(logits.flatten().tolist()))
";

fn base(adapter: Option<&Path>) -> Llama<Back> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen2/base");
    let folder = Folder::of_dir(&path).unwrap();
    let config = Config::read(folder.need("config.json").unwrap()).unwrap();
    let mut source = Tensors::open_model(&folder).unwrap();
    let model = Llama::build(&config, &mut source, &cpu()).unwrap();
    match adapter {
        Some(path) => adapt(model, &Folder::of_dir(path).unwrap()).unwrap(),
        None => model,
    }
}

fn logits(model: &Llama<Back>) -> Vec<f32> {
    model.forward(&[5, 17, 33, 2], 1).unwrap().into_data().to_vec().unwrap()
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |far, (a, b)| far.max((a - b).abs()))
}

#[test]
fn the_real_peft_loads_what_is_written_and_writes_what_is_loaded() {
    let Some(python) = std::env::var_os("QUANTMILL_TEST_PEFT") else {
        return eprintln!("skipped: set QUANTMILL_TEST_PEFT to a Python with `peft`");
    };
    let of = |targets: &[&str]| targets.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let targets = of(&["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]);
    let plain = Spec { r: 3, alpha: 7.0, targets, ..Default::default() };
    let some = of(&["q_proj", "*.layers.1.mlp.*"]);
    for spec in [
        plain.clone(),
        Spec { targets: some, ..plain.clone() },
        Spec { rslora: true, ..plain.clone() },
        Spec { dora: true, ..plain },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        fs_err::create_dir(&ours).unwrap();
        // A fresh adapter does nothing: its second factor is 0.
        let model = base(None).with_adapter(&spec, 5).unwrap();
        let model = model.map_linears(|_, mut layer| {
            if let Some(adapter) = &mut layer.adapter {
                let noise = Distribution::Normal(0.0, 0.2);
                adapter.b = adapter.b.clone().map(|b| Tensor::random(b.dims(), noise, &cpu()));
            }
            Ok::<_, crate::StageError>(layer)
        });
        let model = model.unwrap();
        write(&model, &spec, &ours).unwrap();
        let told = Command::new(&python)
            .args(["-c", PEER])
            .args([
                &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen2/base"),
                &ours,
                &theirs,
            ])
            .output()
            .unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let text = String::from_utf8(told.stdout).unwrap();
        let values: Vec<Value> = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let values: Vec<f32> = values.iter().map(|x| x.as_f64().unwrap() as f32).collect();
        let off = far(&logits(&model), &values);
        assert!(off < 1e-5, "{spec:?}: PEFT is off by {off}");
        assert!(far(&logits(&base(None)), &values) > 1e-2, "{spec:?}: the adapter does nothing");
        assert_eq!(logits(&base(Some(&theirs))), logits(&base(Some(&ours))), "{spec:?}");
    }
}
