package dev.tidemark.engine.bitmap;

import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/** A page of memory with pages on both sides that nobody can touch. */
final class Guarded implements AutoCloseable {
  private final List<Mapping> mappings = new ArrayList<>();
  private final MemorySegment page;

  Guarded() {
    page = between();
  }

  /** The kernel stacks mappings, so the guard behind one soon lies in front of another. */
  private MemorySegment between() {
    for (int i = 0; i < 1000; i++) {
      Mapping mapping = Mapping.guarded(Pages.SIZE);
      MemorySegment next = mapping.segment();
      mappings.add(mapping);
      for (Mapping before : mappings) {
        if (before.segment().address() + 2 * Pages.SIZE == next.address()) {
          return next;
        }
        if (next.address() + 2 * Pages.SIZE == before.segment().address()) {
          return before.segment();
        }
      }
    }
    throw new AssertionError("no two of 1000 mappings lie one behind the other");
  }

  /** All of the page. */
  MemorySegment page() {
    return page;
  }

  @Override
  public void close() {
    mappings.forEach(Mapping::close);
  }
}
