/**
 * What devices wrote by DMA: the ledger of what is mapped for them, and the sources that ask their
 * page tables and containers about it.
 */
package dev.tidemark.engine.source.dma;
