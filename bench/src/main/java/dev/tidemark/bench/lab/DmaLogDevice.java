package dev.tidemark.bench.lab;

import dev.tidemark.engine.source.dma.DeviceLogSource;
import dev.tidemark.engine.source.dma.DmaMap;
import dev.tidemark.engine.source.dma.DmaSource;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.vfio.VfioDevice;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/** A dmalog device in an IOMMUFD address space, which logs its writes and has a state. */
final class DmaLogDevice implements LabDevice {
  private static final long GIB = 1L << 30;

  /** A few chunks of the stream, so that some of it goes out while the guest runs. */
  private static final long STATE_BYTES = 3 << 20;

  private static final long STATE_SEED = 5;

  private final Iommufd iommufd = Iommufd.open();
  private DmaDevice device;
  private DeviceLogSource source;

  private DmaLogDevice(int number) {
    try {
      device = DmaDevice.open(number, iommufd);
    } catch (RuntimeException e) {
      iommufd.close();
      throw e;
    }
  }

  /** The one that a guest leaves with. */
  static DmaLogDevice leaving() {
    DmaLogDevice made = new DmaLogDevice(DmaDevice.FULL);
    try {
      Ioas ioas = made.iommufd.allocIoas();
      made.device.vfio().attach(ioas);
      made.device.state(STATE_BYTES, STATE_SEED);
      made.source = new DeviceLogSource(ioas, new DmaMap(), DeviceLogSource.REPORT_WAITS);
      made.source.add(made.device.vfio());
      return made;
    } catch (RuntimeException e) {
      made.close();
      throw e;
    }
  }

  /** The one that a guest arrives with: only its state matters. */
  static DmaLogDevice arriving() {
    return new DmaLogDevice(DmaDevice.FULL_TOO);
  }

  @Override
  public void write(long iova, MemorySegment bytes) {
    device.write(iova, bytes);
  }

  @Override
  public DmaSource source() {
    return source;
  }

  @Override
  public long firstIova() {
    return 1L << 24;
  }

  @Override
  public long iovaBytes() {
    return 2 * GIB;
  }

  /** Either is outside of the range that the log is started with for the other. */
  @Override
  public Optional<Long> elsewhere(long turn) {
    return Optional.of((turn & 1) == 0 ? 4 * GIB : 8 * GIB);
  }

  @Override
  public Optional<VfioDevice> migrates() {
    return Optional.of(device.vfio());
  }

  @Override
  public void close() {
    device.close();
    iommufd.close();
  }
}
