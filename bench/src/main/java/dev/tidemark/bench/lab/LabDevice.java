package dev.tidemark.bench.lab;

import dev.tidemark.engine.source.dma.DmaSource;
import dev.tidemark.ffm.vfio.VfioDevice;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * A device of the kernel lab that writes guest memory, with the source that tells what it wrote.
 * Mappings are made through the source.
 *
 * <p>Threading: any thread writes, at any time.
 */
public interface LabDevice extends AutoCloseable {
  /**
   * Writes memory; when this returns, the write is where the source finds it.
   *
   * @param iova where the device sees it, bytes
   * @param bytes native memory, inside one page
   * @throws dev.tidemark.ffm.LinuxException if nothing is mapped there
   */
  void write(long iova, MemorySegment bytes);

  /** Who tells what it wrote; whoever tracks with it closes it, before this. */
  DmaSource source();

  /** The first address that it can use, a multiple of 64 KiB. */
  long firstIova();

  /** How many bytes of addresses it can use from there on. */
  long iovaBytes();

  /**
   * An address far from the others, with room for 64 KiB, such that a mapping there makes the
   * source start over.
   *
   * @param turn another one for another turn
   * @return empty if there is no such place
   */
  default Optional<Long> elsewhere(long turn) {
    return Optional.empty();
  }

  /** The device itself, if it has a state that migrates with the guest. */
  default Optional<VfioDevice> migrates() {
    return Optional.empty();
  }

  @Override
  void close();
}
