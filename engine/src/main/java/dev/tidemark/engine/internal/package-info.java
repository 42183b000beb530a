/** What several packages of the engine share and nobody else sees. */
package dev.tidemark.engine.internal;
