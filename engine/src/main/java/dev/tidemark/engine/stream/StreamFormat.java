package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

/**
 * The numbers of QEMU's migration stream, version 3 (QEMU {@code migration/savevm.h}, {@code
 * migration/savevm.c}, {@code migration/ram.c}, {@code migration/migration.c}).
 */
final class StreamFormat {
  static final ValueLayout.OfShort BE16 = JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);
  static final ValueLayout.OfInt BE32 = JAVA_INT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);
  static final ValueLayout.OfLong BE64 = JAVA_LONG_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);

  /** "QEVM". */
  static final int MAGIC = 0x5145564d;

  static final int VERSION = 3;

  static final int EOF = 0x00;
  static final int SECTION_START = 0x01;
  static final int SECTION_PART = 0x02;
  static final int SECTION_END = 0x03;
  static final int SECTION_FULL = 0x04;
  static final int SUBSECTION = 0x05;
  static final int VMDESCRIPTION = 0x06;
  static final int CONFIGURATION = 0x07;
  static final int COMMAND = 0x08;
  static final int SECTION_FOOTER = 0x7e;

  static final String RAM = "ram";
  static final int RAM_INSTANCE = 0;
  static final int RAM_VERSION = 4;

  static final int FLAG_ZERO = 0x02;
  static final int FLAG_MEM_SIZE = 0x04;
  static final int FLAG_PAGE = 0x08;
  static final int FLAG_EOS = 0x10;
  static final int FLAG_CONTINUE = 0x20;

  static final int CMD_OPEN_RETURN_PATH = 1;
  static final int CMD_PING = 2;

  static final int RP_SHUT = 1;
  static final int RP_PONG = 2;

  /** The longest of any name: its length goes into one byte. */
  static final int MAX_NAME = 255;

  private StreamFormat() {}

  static void checkName(String name) {
    int bytes = name.getBytes(StandardCharsets.UTF_8).length;
    if (bytes < 1 || bytes > MAX_NAME) {
      throw new IllegalArgumentException("section name of " + bytes + " bytes, not 1 to 255");
    }
  }

  static String hex(long value) {
    return "0x" + Long.toHexString(value);
  }

  static String hex(int value) {
    return "0x" + Integer.toHexString(value);
  }
}
