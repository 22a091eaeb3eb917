//! Greedy texts: equal as long as the reference is sure of its choice.

use std::ops::ControlFlow;

use tritmark_engine::generate::{End, Generation, Params, Step, generate};

use crate::{
    common,
    models::{MODELS, Model, engine, kernel_names, prompts, tokenizer},
};

#[test]
fn greedy_text_is_the_references_up_to_its_first_near_tie() {
    let Some(data) = common::data("the golden greedy texts") else {
        return;
    };
    for Model {
        file,
        reference,
        limits,
    } in MODELS
    {
        let path = data.join("golden/models").join(file);
        let tokenizer = tokenizer(&path);
        let near_tie = limits.near_tie();
        let (mut compared, mut whole) = (0, 0);
        let prompts = prompts(&data, reference);
        let mut best: Vec<Generation> = Vec::new();
        for (rank, kernel) in kernel_names().into_iter().enumerate() {
            let mut engine = engine(&path, kernel);
            let mut cache = engine.new_cache(2048);
            for (index, prompt) in prompts.iter().enumerate() {
                if rank > 0 && prompt.ids.len() > 40 {
                    continue;
                }
                cache.truncate(0);
                let params = Params {
                    max_new: 64,
                    ignore_eos: true,
                    ..Params::default()
                };
                let go_on = |_: &Step<'_>| ControlFlow::Continue(());
                let generation = generate(
                    &mut engine,
                    &mut cache,
                    &tokenizer,
                    &prompt.ids,
                    &params,
                    go_on,
                )
                .unwrap();
                assert_eq!(generation.end, End::MaxNew);
                if rank > 0 {
                    assert_eq!(generation, best[index], "{file} {kernel} {}", prompt.name);
                    continue;
                }
                let sure = prompt
                    .greedy_margins
                    .iter()
                    .position(|&margin| margin <= near_tie)
                    .unwrap_or(64);
                assert_eq!(
                    generation.tokens[..sure],
                    prompt.greedy_ids[..sure],
                    "{file} {kernel} {}",
                    prompt.name
                );
                compared += sure;
                whole += usize::from(generation.tokens == prompt.greedy_ids);
                best.push(generation);
            }
        }
        eprintln!("{file}: {compared} sure tokens, {whole} of 20 whole texts");
        assert!(compared > 100, "{file}: {compared} tokens");
    }
}
