/**
 * Who tracks what each device writes, and what keeps a guest from being migrated: decided from
 * facts, before anything is turned on.
 */
package dev.tidemark.engine.source.plan;
