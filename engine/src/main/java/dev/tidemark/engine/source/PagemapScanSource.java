package dev.tidemark.engine.source;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Unwind;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.util.List;

/**
 * The process's own writes, by asynchronous userfaultfd write protection and {@code PAGEMAP_SCAN}:
 * one step reads which pages were written and protects exactly those again.
 *
 * <p>Sees stores of any thread and of vCPUs through the registered mapping, system calls that write
 * there, and {@code MADV_DONTNEED} of anonymous memory. The VMM marks what else changes a page:
 * devices, other mappings of the same file and other processes, {@code pwrite(2)} to a mapped file,
 * holes punched into it, truncation, and discards of memory that is not anonymous. docs/tracking.md
 * has the table, by kind of memory.
 *
 * <p>Footprint: 24 bytes per region of the answer, off-heap; and page tables. Starting builds those
 * of memory that was never touched, 8 bytes a page (2 GiB for 1 TiB), because the kernel notes the
 * protection there; they stay until the memory is unmapped, also after {@link #stop()}. Cost of a
 * sync: a walk of the page tables, one call per {@value #REGIONS} regions; no allocation.
 * Threading: the tracker's.
 */
public final class PagemapScanSource implements DirtySource {
  private static final int REGIONS = 4096;

  private final RamBlockLog[] logs;
  private Userfaultfd userfaultfd;
  private Pagemap pagemap;

  /**
   * @param logs the logs of blocks whose memory was mapped by this process, and by nobody
   *     registered with a userfaultfd
   */
  public PagemapScanSource(List<RamBlockLog> logs) {
    this.logs = logs.toArray(RamBlockLog[]::new);
  }

  @Override
  public String name() {
    return "pagemap-scan";
  }

  @Override
  public void cover(Coverage coverage) {
    for (RamBlockLog log : logs) {
      coverage.add(log, 0, log.block().pages());
    }
  }

  @Override
  public void start() {
    try {
      userfaultfd = Userfaultfd.open(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC);
      pagemap = Pagemap.open(REGIONS);
      for (RamBlockLog log : logs) {
        RamBlock block = log.block();
        userfaultfd.register(block.address(), block.bytes());
        userfaultfd.writeProtect(block.address(), block.bytes(), true);
      }
    } catch (Throwable e) {
      Unwind.attempt(e, this::stop);
      throw e;
    }
  }

  @Override
  public void sync() {
    scan(Pagemap.Query.TAKE_WRITTEN);
  }

  @Override
  public void lastSync() {
    scan(Pagemap.Query.READ_WRITTEN);
  }

  private void scan(Pagemap.Query query) {
    for (RamBlockLog log : logs) {
      long base = log.block().address();
      long end = base + log.block().bytes();
      try (FillPlane fill = log.fill()) {
        for (long at = base; at < end; at = pagemap.walkEnd()) {
          int regions = pagemap.scan(query, at, end);
          fill.countQuery();
          for (int i = 0; i < regions; i++) {
            long first = (pagemap.start(i) - base) >>> Pages.SHIFT;
            fill.set(first, ((pagemap.end(i) - base) >>> Pages.SHIFT) - first);
          }
        }
      }
    }
  }

  @Override
  public void markAll() {
    for (RamBlockLog log : logs) {
      log.markAll();
    }
  }

  @Override
  public void stop() {
    // Closing ends every registration and takes the protection away.
    Throwable failure = Unwind.closeAll(null, pagemap, userfaultfd);
    pagemap = null;
    userfaultfd = null;
    Unwind.rethrow(failure);
  }

  @Override
  public void close() {
    stop();
  }
}
