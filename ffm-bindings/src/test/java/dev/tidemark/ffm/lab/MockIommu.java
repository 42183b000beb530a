package dev.tidemark.ffm.lab;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdObject;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * The IOMMU of kernels built with {@code CONFIG_IOMMUFD_TEST}, which marks pages dirty when it is
 * told to ({@code drivers/iommu/iommufd/iommufd_test.h}). Only in the lab, flavour mock.
 */
public final class MockIommu {
  /** {@code MOCK_IO_PAGE_SIZE}: the smallest entry of its page tables. */
  public static final long IO_PAGE_SIZE = Pages.SIZE / 2;

  /** {@code MOCK_HUGE_PAGE_SIZE}: the large entry, for contiguous memory behind a huge device. */
  public static final long HUGE_PAGE_SIZE = 512 * IO_PAGE_SIZE;

  public static final long MOCK_APERTURE_START = 1L << 24;
  public static final long MOCK_APERTURE_LAST = (1L << 31) - 1;

  public static final int MOCK_FLAGS_DEVICE_NO_DIRTY = 1;
  public static final int MOCK_FLAGS_DEVICE_HUGE_IOVA = 1 << 1;

  private static final Ioctl.Request IOMMU_TEST_CMD = Ioctl._IO("IOMMU_TEST_CMD", ';', 0xa0);
  private static final long COMMAND_BYTES = 72;

  private static final int ADD_RESERVED = 1;
  private static final int MD_CHECK_MAP = 3;
  private static final int CREATE_ACCESS = 5;
  private static final int ACCESS_RW = 8;
  private static final int SET_TEMP_MEMORY_LIMIT = 9;
  private static final int MOCK_DOMAIN_REPLACE = 10;
  private static final int MOCK_DOMAIN_FLAGS = 12;
  private static final int DIRTY = 13;

  private static final int ACCESS_RW_WRITE = 1;
  private static final int ACCESS_RW_SLOW_PATH = 1 << 2;

  private final Iommufd iommufd;

  public MockIommu(Iommufd iommufd) {
    this.iommufd = iommufd;
  }

  /**
   * A mock device, attached to a page table.
   *
   * @param stdevId what {@link #removeDevice} takes
   * @param hwptId the page table, an automatic one if the device was added to an address space
   * @param deviceId what a VFIO device would get from its bind
   */
  public record Device(int stdevId, int hwptId, int deviceId) {}

  private MemorySegment command(Arena arena, int operation, int id) {
    MemorySegment command = arena.allocate(COMMAND_BYTES, 8);
    command.set(JAVA_INT, 0, (int) COMMAND_BYTES);
    command.set(JAVA_INT, 4, operation);
    command.set(JAVA_INT, 8, id);
    return command;
  }

  private void call(MemorySegment command) {
    int result = Ioctl.tryCall(iommufd.fd(), IOMMU_TEST_CMD, command);
    if (result < 0) {
      throw new LinuxException(
          "IOMMU_TEST_CMD(operation " + command.get(JAVA_INT, 4) + ")", -result);
    }
  }

  /**
   * Makes a device and attaches it.
   *
   * @param target an address space, or a page table
   * @param flags {@code MOCK_FLAGS_DEVICE_} bits
   */
  public Device addDevice(IommufdObject target, int flags) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment command = command(arena, MOCK_DOMAIN_FLAGS, target.id());
      command.set(JAVA_INT, 28, flags);
      call(command);
      return new Device(
          command.get(JAVA_INT, 16), command.get(JAVA_INT, 20), command.get(JAVA_INT, 24));
    }
  }

  /**
   * Attaches a device to something else.
   *
   * @return the id of the page table that it is attached to then
   */
  public int replace(Device device, IommufdObject target) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment command = command(arena, MOCK_DOMAIN_REPLACE, device.stdevId);
      command.set(JAVA_INT, 16, target.id());
      call(command);
      return command.get(JAVA_INT, 16);
    }
  }

  /** Detaches a device and removes it; an automatic page table goes with its last device. */
  public void removeDevice(Device device) {
    destroy(device.stdevId);
  }

  /** {@code IOMMU_DESTROY} of any id. */
  public void destroy(int id) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocate(8, 8);
      argument.set(JAVA_INT, 0, 8);
      argument.set(JAVA_INT, 4, id);
      Ioctl.call(iommufd.fd(), IommufdUapi.IOMMU_DESTROY, argument);
    }
  }

  /**
   * Marks entries dirty, as a device's writes would.
   *
   * @param iova of bit 0
   * @param length bytes
   * @param bitmap a bit for each {@link #IO_PAGE_SIZE}
   * @return how many mapped entries were marked
   */
  public long dirty(Hwpt hwpt, long iova, long length, MemorySegment bitmap) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment command = command(arena, DIRTY, hwpt.id());
      command.set(JAVA_LONG, 24, iova);
      command.set(JAVA_LONG, 32, length);
      command.set(JAVA_LONG, 40, IO_PAGE_SIZE);
      command.set(JAVA_LONG, 48, bitmap.address());
      call(command);
      return command.get(JAVA_LONG, 56);
    }
  }

  /**
   * Marks one entry dirty.
   *
   * @param iova anywhere inside
   * @return whether it is mapped
   */
  public boolean dirty(Hwpt hwpt, long iova) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment bit = arena.allocate(8, 8);
      bit.set(JAVA_BYTE, 0, (byte) 1);
      return dirty(hwpt, iova & -IO_PAGE_SIZE, IO_PAGE_SIZE, bit) == 1;
    }
  }

  /** Reserves a range of an address space, as a device's MSI window does. */
  public void addReserved(Ioas ioas, long start, long length) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment command = command(arena, ADD_RESERVED, ioas.id());
      command.set(JAVA_LONG, 16, start);
      command.set(JAVA_LONG, 24, length);
      call(command);
    }
  }

  /** Whether a page table leads from an address to some memory of this process. */
  public boolean leadsTo(Hwpt hwpt, long iova, MemorySegment memory) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment command = command(arena, MD_CHECK_MAP, hwpt.id());
      command.set(JAVA_LONG, 16, iova);
      command.set(JAVA_LONG, 24, memory.byteSize());
      command.set(JAVA_LONG, 32, memory.address());
      return Ioctl.tryCall(iommufd.fd(), IOMMU_TEST_CMD, command) == 0;
    }
  }

  /** Limits what the kernel's pinning may allocate at once, for all; 65536 is the normal. */
  public void setMemoryLimit(int bytes) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment command = command(arena, SET_TEMP_MEMORY_LIMIT, 0);
      command.set(JAVA_INT, 16, bytes);
      call(command);
    }
  }

  /**
   * Reads and writes memory through an address space, as a device does, but marks nothing dirty. An
   * address space cannot be destroyed while it has one.
   */
  public final class Access implements AutoCloseable {
    private final int number;
    private final Fd fd;

    private Access(int number) {
      this.number = number;
      this.fd = Fd.own(number, "mock access");
    }

    /** Writes memory that devices see at {@code iova}. */
    public void write(long iova, MemorySegment data) {
      transfer(iova, data, ACCESS_RW_WRITE);
    }

    /**
     * Writes memory past this process's page tables, as hardware does: through the pages that were
     * pinned for a page table when they were mapped.
     *
     * @param data for two pages at least: one alone is pinned anew
     */
    public void writePinned(long iova, MemorySegment data) {
      if ((iova + data.byteSize() - 1) / Pages.SIZE == iova / Pages.SIZE) {
        throw new IllegalArgumentException(data.byteSize() + " bytes are in one page");
      }
      transfer(iova, data, ACCESS_RW_WRITE | ACCESS_RW_SLOW_PATH);
    }

    /** Reads memory that devices see at {@code iova}. */
    public void read(long iova, MemorySegment data) {
      transfer(iova, data, 0);
    }

    private void transfer(long iova, MemorySegment data, int flags) {
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment command = command(arena, ACCESS_RW, number);
        command.set(JAVA_LONG, 16, iova);
        command.set(JAVA_LONG, 24, data.byteSize());
        command.set(JAVA_LONG, 32, data.address());
        command.set(JAVA_INT, 40, flags);
        call(command);
      }
    }

    @Override
    public void close() {
      fd.close();
    }
  }

  /** Makes an access to an address space. */
  public Access access(Ioas ioas) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment command = command(arena, CREATE_ACCESS, ioas.id());
      call(command);
      return new Access(command.get(JAVA_INT, 16));
    }
  }
}
