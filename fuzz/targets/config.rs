//! A `config.json` is a model that can be, or is refused.

use ppo_train::model::ModelConfig;

pub fn run(data: &[u8]) {
    super::text(data, |text| match ModelConfig::from_json(text) {
        Err(error) => super::refused(format!("{error:#}"), text.len()),
        Ok(config) => {
            assert_eq!(config.num_attention_heads % config.num_key_value_heads, 0);
            // Bytes of the weights and of their optimizer can be counted.
            assert!((1..u64::MAX / 64).contains(&config.parameters()));
            assert!(config.rope_theta.is_finite() && config.rms_norm_eps.is_finite());
        }
    });
}
