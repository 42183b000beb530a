package dev.tidemark.bench.guest;

/** Who wants to know what the VMM itself writes into guest memory. */
@FunctionalInterface
public interface PageMarker {
  /**
   * Pages of the RAM block were written; called after the write, on the writing thread. It must not
   * wait for anything that a caller of {@link SelfCheckingGuest#pause()} may hold.
   *
   * @param firstPage pages from the start of the block
   * @param pages how many, more than 0
   */
  void written(long firstPage, long pages);
}
